"""Builds what a config names: the objective with its modules, the optimizers, the state's shape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from data import feed
from data.feed import Feed
from data.selection import Fold
from data.source import Examples, Spec, open_source
from data.text import options, tokenization
from engine import optimizers, sharding
from engine.build import build, call, to_plain
from engine.init_rules import IsFrozen, is_frozen
from engine.state import State, init_state
from engine.step import examples_per_step
from errors import UserError, nearest
from objectives.base import Objective

PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

SECTIONS = (
  'objective', 'modules', 'optimizer', 'ema', 'data', 'train', 'checkpoint', 'evaluate', 'mesh',
  'sharding', 'init_from', 'init_rules', 'profile',
)  # fmt: skip


class Train(NamedTuple):
  """The section `config.train`.

  Attributes:
    steps: length of the run, unless `epochs` ends it sooner.
    epochs: passes over the training split; 0 leaves the length to `steps`.
    seed: of everything random.
    log_every: steps between lines of metrics.jsonl.
    sample_every: steps between sample grids.
    evaluate_every: steps between evaluations on `config.data.test_split`.
    samples: images in a sample grid.
    dispatch: most steps handed to the device at once.
    precision: of the computation, `float32` or `bfloat16`; parameters stay float32.
    accumulate: microbatches an update's batch is cut into, to need less memory.
    patience: evaluations without a gain in `config.checkpoint.best` after which the run ends; 0
      never ends it early.
    minimum_gain: what counts as a gain.
  """

  steps: int
  epochs: float
  seed: int
  log_every: int
  sample_every: int
  evaluate_every: int
  samples: int
  dispatch: int
  precision: str
  accumulate: int
  patience: int
  minimum_gain: float


class Data(NamedTuple):
  """The section `config.data`.

  Attributes:
    name: a data set: ours, or any that TFDS has prepared; several joined by '+'.
    split: trained on; TFDS's slices (`train[:90%]`) work; of joined data sets the same of each, or
      one for each with '|' between them.
    test_name: the data set evaluated on; '' means `name`, or the first of several.
    test_split: its split.
    classes: only the examples of these labels, which become 0, 1, …; empty for all.
    columns: further columns of whole numbers to read, for metrics by group.
    folds: parts that `split` is cut into for a cross-validation; 0 is none. Then `fold` is
      evaluated on and the others are trained on; `test_name` and `test_split` wait for the end.
    fold: which one, from 0.
    batch_size: examples per update.
    data_dir: where prepared data sets lie; '' means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    resident_mb: MiB up to which a decoded split lives on the devices; larger ones are streamed.
    workers: reading processes of a streamed split; 0 reads with threads.
    text: see `data.text.options.Text`; empty for images and tables.
    augment: see `data.transforms.prepare`.
  """

  name: str
  split: str
  test_name: str
  test_split: str
  classes: Sequence[int]
  columns: Sequence[str]
  folds: int
  fold: int
  batch_size: int
  data_dir: str
  resident_mb: int
  workers: int
  text: Mapping[str, Any]
  augment: Mapping[str, Any]


def check_sections(config: ConfigDict) -> None:
  """Raises UserError for a section that is unknown or missing."""
  for key in config:
    if key not in SECTIONS:
      raise UserError(
        f'config.{key} is no section{nearest(key, SECTIONS)}; there are: {", ".join(SECTIONS)}'
      )
  for key in SECTIONS:
    if key not in config:
      raise UserError(f'the config has no section "{key}"; start it from configs/defaults.py')


def train_options(config: ConfigDict) -> Train:
  """Raises UserError for values that make no sense."""
  options = call(Train, to_plain(config.train), 'config.train')
  for name in ('steps', 'log_every', 'sample_every', 'evaluate_every', 'samples', 'dispatch',
               'accumulate'):  # fmt: skip
    if getattr(options, name) < 1:
      raise UserError(f'config.train.{name}={getattr(options, name)} must be at least 1')
  if options.epochs < 0 or options.patience < 0 or options.minimum_gain < 0:
    raise UserError('config.train.epochs, patience and minimum_gain must be 0 or more')
  if options.patience and not config.checkpoint.best:
    raise UserError(
      f'config.train.patience={options.patience} waits for a gain in config.checkpoint.best, which '
      'is empty; name a figure there, e.g. eval/loss'
    )
  if not 0 <= options.seed < 2**32:
    raise UserError(f'config.train.seed={options.seed} must be from 0 to {2**32 - 1}')
  if options.precision not in PRECISIONS:
    raise UserError(
      f'config.train.precision={options.precision} is unknown'
      f'{nearest(options.precision, PRECISIONS)}; there are: {", ".join(PRECISIONS)}'
    )
  return options


def data_options(config: ConfigDict) -> Data:
  options = call(Data, to_plain(config.data), 'config.data')
  return options._replace(classes=_as_tuple(options.classes), columns=_as_tuple(options.columns))


def _as_tuple(value: Any) -> tuple[Any, ...]:
  """A flag gives a tuple of one as the one."""
  return value if isinstance(value, tuple) else (value,)


def open_training(data: Data, tokenizer: str = '') -> Examples:
  """What is trained on; of text its rows of tokens.

  Args:
    data: the section.
    tokenizer: the run's, as JSON; '' to make it as the section says.
  """
  whole = open_source(data.name, data.split, data.data_dir, data.classes, data.columns)
  chosen = Fold(whole, data.fold, data.folds, held_out=False) if data.folds else whole
  return _tokenized(chosen, data, tokenizer, training=True)


def open_testing(data: Data, tokenizer: str, split: str = '') -> Examples:
  """What is evaluated on, or another split of that data set."""
  if data.folds and not split:
    whole = open_source(data.name, data.split, data.data_dir, data.classes, data.columns)
    chosen = Fold(whole, data.fold, data.folds, held_out=True)
  else:
    name, split = data.test_name or data.name.split('+')[0], split or data.test_split
    chosen = open_source(name, split, data.data_dir, data.classes, data.columns)
  return _tokenized(chosen, data, tokenizer, training=False)


def _tokenized(examples: Examples, data: Data, tokenizer: str, training: bool) -> Examples:
  if data.text:
    text = call(options.Text, data.text, 'config.data.text')
    text = text._replace(specials=_as_tuple(text.specials))
    return options.open_text(examples, text, tokenizer, training)
  if 'text' in examples.spec.features:
    raise UserError(
      f'{data.name} is text, and config.data.text is empty: start from a config of text, such as '
      'configs/gpt.py'
    )
  return examples


def length(train: Train, examples: int, per_step: int) -> int:
  """Steps of a run over `examples` examples."""
  if not train.epochs:
    return train.steps
  return min(train.steps, max(1, round(train.epochs * examples / per_step)))


class Session(NamedTuple):
  """A config made concrete; nothing is allocated yet.

  Attributes:
    config: what it was made of.
    train: its section.
    data: its section.
    mesh: of all devices.
    spec: of the training split.
    objective: with its modules.
    optimizers: by player.
    frozen: whether the parameter at a path stays as it was loaded.
    make_state: makes the state at step 0.
    abstract: that state as `jax.ShapeDtypeStruct`s with their shardings.
    per_step: examples that a step consumes.
  """

  config: ConfigDict
  train: Train
  data: Data
  mesh: Mesh
  spec: Spec
  objective: Objective
  optimizers: Mapping[str, optimizers.Optimizer]
  frozen: IsFrozen
  make_state: Callable[[], State]
  abstract: State
  per_step: int

  @property
  def places(self) -> Any:
    """The sharding of every leaf of the state."""
    return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

  @property
  def everywhere(self) -> NamedSharding:
    """The sharding of what every device holds a copy of."""
    return NamedSharding(self.mesh, PartitionSpec())

  def init(self) -> State:
    """The state at step 0, made where it lives."""
    # It runs once: compiling it well would cost more than it saves.
    hurried = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else {}
    return jax.jit(self.make_state, out_shardings=self.places, compiler_options=hurried)()


def open_session(config: ConfigDict, spec: Spec | None = None) -> Session:
  """Makes a config concrete.

  Args:
    config: the experiment.
    spec: the training split; looked up by its name if not given.

  Raises:
    UserError: whatever the config asks for that cannot be.
  """
  check_sections(config)
  train, data = train_options(config), data_options(config)
  mesh = call(sharding.make_mesh, to_plain(config.mesh), 'config.mesh')
  sharding.check_batch(data.batch_size, train.accumulate, mesh)
  spec = spec or open_training(data).spec
  objective = build_objective(config, spec)
  per_step = examples_per_step(objective, data.batch_size)
  train = train._replace(steps=length(train, spec.n, per_step))
  chains = build_optimizers(config, objective, train.steps)
  ema = to_plain(config.ema)
  frozen = is_frozen(config.init_from, config.init_rules)

  def make_state() -> State:
    return init_state(objective, chains, ema, train.seed, example_batch(spec), frozen)

  shapes = jax.eval_shape(make_state)
  places = sharding.state_shardings(shapes, to_plain(config.sharding), mesh)
  abstract = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
  )
  return Session(
    config, train, data, mesh, spec, objective, chains, frozen, make_state, abstract, per_step
  )


def open_feed(session: Session, step: int) -> Feed:
  """The batches of a session from `step` on."""
  data = session.data
  return feed.open_feed(
    source=open_training(data, session.spec.tokenizer),
    batch_size=session.per_step,
    seed=session.train.seed,
    resident_mb=data.resident_mb,
    workers=data.workers,
    mesh=session.mesh,
    used=step * session.per_step,
  )


def build_objective(config: ConfigDict, spec: Spec) -> Objective:
  """Builds the modules and, with them, the objective.

  Modules and objectives that have the fields `image_shape`, `num_classes`, `vocabulary`,
  `specials`, `token_bytes`, `dtype` or `fused` (whether there are kernels that only a GPU has) get
  them from the data, from `config.train.precision` and from the devices.
  """
  provided = {
    'image_shape': tuple(spec.features['image'][0]) if 'image' in spec.features else None,
    'num_classes': spec.num_classes,
    'dtype': PRECISIONS[train_options(config).precision],
    'fused': jax.default_backend() == 'gpu',
    **_of_tokenizer(spec.tokenizer),
  }
  modules = {
    name: build(module, 'models', f'config.modules.{name}', provided)
    for name, module in to_plain(config.modules).items()
  }
  return build(
    to_plain(config.objective), 'objectives', 'config.objective', {**provided, 'modules': modules}
  )


def _of_tokenizer(tokenizer: str) -> dict[str, Any]:
  """What modules and objectives are told of it; nothing where there is none."""
  if not tokenizer:
    return {}
  known = tokenization.from_json(tokenizer)
  sizes = known.token_bytes()
  return {
    'vocabulary': known.size,
    'specials': dict(known.specials),
    'token_bytes': None if sizes is None else tuple(map(int, sizes)),
  }


def build_optimizers(
  config: ConfigDict, objective: Objective, steps: int
) -> dict[str, optimizers.Optimizer]:
  """One optimizer for every player of a run of `steps`; names must agree."""
  sections = to_plain(config.optimizer)
  names = [player.name for player in objective.players]
  _same_names('config.optimizer', sections, names, 'player')
  _same_names('config.ema', to_plain(config.ema), [*objective.modules], 'module', all_needed=False)
  for module, decay in config.ema.items():
    if not 0 <= decay < 1:
      raise UserError(f'config.ema.{module}={decay} must be from 0 to below 1')
  return {
    player.name: call(
      optimizers.make_optimizer,
      sections[player.name],
      f'config.optimizer.{player.name}',
      steps * player.repeats,
      f'config.optimizer.{player.name}',
    )
    for player in objective.players
  }


def _same_names(where: str, given, wanted: list[str], what: str, all_needed: bool = True) -> None:
  for name in given:
    if name not in wanted:
      raise UserError(
        f'{where}.{name} belongs to no {what}{nearest(name, wanted)}; '
        f'there are: {", ".join(wanted)}'
      )
  for name in wanted if all_needed else ():
    if name not in given:
      raise UserError(f'{where} has no section for the {what} "{name}"; add one')


def example_batch(spec: Spec) -> dict[str, jax.Array]:
  """A batch of one blank example as the objective sees it: images float32, integers int32."""
  return {
    name: jnp.zeros((1, *shape), jnp.float32 if dtype == 'uint8' else dtype)
    for name, (shape, dtype) in spec.features.items()
  }
