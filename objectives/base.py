"""The interface between an objective and everything that trains, evaluates or samples it."""

import abc
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from errors import UserError
from options import Option

Batch = Mapping[str, jax.Array]
Params = Mapping[str, Any]  # {module: parameters}
Mutable = Mapping[str, Any]  # {module: {collection: values}}, e.g. batch statistics
Variables = Mapping[str, Any]  # {module: {'params': …, collection: …}}


def stream_key(key: jax.Array, name: str) -> jax.Array:
  """Returns the PRNG key of the stream `name` ('init', 'data', a player…) below `key`."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stream_keys(keys: jax.Array, name: str) -> jax.Array:
  """Returns the keys [B] of the stream `name` below each of `keys` [B]."""
  return jax.vmap(lambda key: stream_key(key, name))(keys)


def numbered_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
  """Returns one key [B] for each of `numbers` int32 [B], independent of how many there are."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


class Context(NamedTuple):
  """Time, place and randomness of one evaluation of a loss.

  Attributes:
    step: int32 scalar, steps of this run before this one; the same for all repeats and lanes.
    keys: typed PRNG keys [B], one per example, by its position in the update: the same however the
      batch is cut into microbatches or over devices.
    rngs: PRNG keys by stream for `module.apply(rngs=…)`, different in every player, repeat and
      microbatch. Linen draws any stream but `dropout` from `params`.
  """

  step: jax.Array
  keys: jax.Array
  rngs: Mapping[str, jax.Array]

  def fold(self, name: str) -> jax.Array:
    """Returns a further stream of per-example keys [B], unrelated for unrelated names."""
    return stream_keys(self.keys, name)

  def rngs_for(self, name: str) -> dict[str, jax.Array]:
    """Returns `rngs` for one of several applications of modules within a loss."""
    return {stream: stream_key(key, name) for stream, key in self.rngs.items()}


def merge_variables(params: Params, mutable: Mutable) -> Variables:
  """Merges parameters and mutable collections into linen's variables, `{module: variables}`."""
  return {module: {'params': tree, **mutable[module]} for module, tree in params.items()}


class Mean(NamedTuple):
  """A mean and what it weighs when it is averaged with means over other examples or steps.

  Attributes:
    value: float32 scalar.
    weight: float32 scalar, 0 or more, e.g. how many examples it is the mean of.
  """

  value: jax.Array
  weight: jax.Array


class Aux(NamedTuple):
  """What a loss returns beside its scalar.

  Attributes:
    metrics: scalars to log as `PLAYER/NAME`; a bare scalar weighs as much as the loss.
    mutable: `{module: {collection: values}}` of the modules whose collections changed.
    weight: of the loss, when microbatches are averaged: the number of targets where it is a mean
      over targets; 1 where all microbatches count alike.
  """

  metrics: Mapping[str, jax.Array | Mean]
  mutable: Mutable
  weight: jax.Array | float = 1.0


LossFn = Callable[[Params, Mutable, Batch, Context], tuple[jax.Array, Aux]]


class Player(NamedTuple):
  """The modules that one optimizer moves to lower one loss.

  Attributes:
    name: prefix of its metrics, and the key of its optimizer unless `optimizer` names another.
    moves: the modules whose parameters it may change.
    loss: `(params, mutable, batch, context) -> (scalar, Aux)`.
    repeats: updates per step; each sees its own slice of the batch.
    every: it acts on steps divisible by this number and rests on the others.
    optimizer: key in `config.optimizer` and in `state.opt_state`; '' for `name`. Players that share
      an optimizer move the same modules.
  """

  name: str
  moves: tuple[str, ...]
  loss: LossFn
  repeats: int = 1
  every: int = 1
  optimizer: str = ''

  @property
  def optimizer_name(self) -> str:
    return self.optimizer or self.name


class Contest(NamedTuple):
  """Two players against each other, and what they log that tells when one has won.

  Attributes:
    discriminator: the player that tells real examples from generated ones.
    generator: the player that generates them.
    chance_loss: the discriminator's loss where all its logits are 0; 0 where its loss is unbounded
      below, so that no value of it means that it has won.
    logits: its metrics that are the mean logits of real and of generated examples.
  """

  discriminator: str
  generator: str
  chance_loss: float
  logits: tuple[str, str]


class Captions(NamedTuple):
  """The words beside a picture.

  Attributes:
    columns: above each column, from left to right.
    describe: takes what `Picture.render` takes and returns `{name: values [rows]}`, pure; None
      where rows have no words.
    row: `({name: value of a row}, names of the classes) -> the words left of that row`; a line end
      separates lines.
  """

  columns: Sequence[str]
  describe: Callable[[Variables, Batch, jax.Array, int], Mapping[str, jax.Array]] | None = None
  row: Callable[[Mapping[str, Any], Sequence[str]], str] = lambda values, class_names: ''


@dataclasses.dataclass(frozen=True)
class Picture:
  """One kind of picture of a model that `sample.py --kind=…` renders.

  Attributes:
    render: `(variables, batch of test examples [N, …], keys [N], num) -> images [rows, columns, H,
      W, C]` float32 in [0, 1].
    num: how many of what `count` names where the user gives no number.
    count: what is counted, e.g. 'pairs of test images'.
    examples: test examples that each of those takes; 0 where their number does not depend on them.
    reads_examples: whether `render` looks at the test examples at all; its batch is empty if not.
    captions: the words beside the images; None for none.
    is_random: whether another seed makes another picture.
  """

  render: Callable[[Variables, Batch, jax.Array, int], jax.Array]
  num: int
  count: str
  examples: int = 0
  reads_examples: bool = True
  captions: Captions | None = None
  is_random: bool = True


class Measurement(NamedTuple):
  """Per-example figures that are too costly for training, e.g. an importance-sampled likelihood.

  Attributes:
    measure: `(variables, batch, keys [B], **options) -> {name: float32 [B]}`.
    options: the keyword options it takes.
  """

  measure: Callable[..., dict[str, jax.Array]]
  options: Mapping[str, Option]


def unconditioned(numbers: jax.Array, **options: Any) -> None:
  """The labels of samples that are conditioned on none."""
  del numbers, options


@dataclasses.dataclass(frozen=True)
class Sampler:
  """How samples are drawn from a model, and the options that are declared for it.

  Sample i depends on its key and its number alone, never on how many are drawn beside it.

  Attributes:
    feature: the feature of a batch that samples are: 'image' or 'tokens'.
    sample: `(variables, keys [B], numbers int32 [B], **options) -> samples`, pure: images float32
      [B, H, W, C] in [0, 1] or tokens int32 [B, T]. `numbers` count the samples of a request.
    options: the keyword options of `sample`, by name.
    labels: `(numbers int32 [B], **options) -> int32 [B]`, the class each sample is conditioned on,
      or None without conditioning.
  """

  feature: str
  sample: Callable[..., jax.Array]
  options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
  labels: Callable[..., jax.Array | None] = unconditioned


@dataclasses.dataclass(frozen=True)
class TextSampler(Sampler):
  """A sampler of text that can also be advanced token by token, to show it as it comes.

  Attributes:
    start: `(variables, prompts int32 [B, P], lengths int32 [B], keys [B], length) -> state`: reads
      the prompts, padded on the right, in one pass. `length` is the most tokens of a text, its
      prompt included.
    advance: `(variables, state, count, **options) -> state` with up to `count` more tokens in every
      row.
    context: most tokens that the model sees at once, 0 for no bound; past it the window slides.
  """

  start: Callable[..., Any] = dataclasses.field(kw_only=True)
  advance: Callable[..., Any] = dataclasses.field(kw_only=True)
  context: int = dataclasses.field(kw_only=True)


class Legend(NamedTuple):
  """Names of the classes and tokens that one example's prediction refers to.

  Attributes:
    class_names: names of the classes, in order.
    whole: whether all that is known is wanted, as in a file, or what fits a line.
    tokens: of text, the characters that each token of the row stands for; special entries as the
      tokenizer writes them.
    ordinary: of text, whether each token comes from the text; special entries and padding do not.
    marks_before: of text, how many marks (see `Predictor.marks`) earlier rows of it hold.
    decode: of text, the characters of the entry with an id.
  """

  class_names: Sequence[str]
  whole: bool
  tokens: Sequence[str] = ()
  ordinary: Sequence[bool] = ()
  marks_before: int = 0
  decode: Callable[[int], str] = str


# Columns of a table by name.
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Predictor:
  """The predictions of a model for examples without labels, as `predict.py` prints them.

  Attributes:
    input: the feature that the model reads: 'image', 'inputs' (a row of a table) or 'tokens'.
    predict: `(variables, batch, keys [B]) -> {name: float [B, …]}`, pure; of several lanes the
      means are taken, so these are probabilities, values or losses. The batch has the inputs alone:
      images float32 in [0, 1], or inputs, or tokens and their `length`.
    conclude: `({name: mean over lanes}, batch, **options) -> {name: [B, …]}`, pure: what is kept,
      e.g. the likeliest classes.
    rows: `({name: values of one example}, Legend, **options) -> rows`, the same columns in each.
    options: the keyword options of `conclude` and `rows`, by name.
    summary: `{name: numbers of all rows of one input} -> a line below them`, '' for none; of the
      columns of `rows` that are numbers.
    starts: ids that stand before every text; () for none.
    marks: roles of special entries that a text holds, as the tokenizer writes them, e.g. `mask`:
      at least one in each text. () for none, where such characters are ordinary text.
  """

  input: str
  predict: Callable[[Variables, Batch, jax.Array], Mapping[str, jax.Array]]
  conclude: Callable[..., Mapping[str, jax.Array]]
  rows: Callable[..., Sequence[Row]]
  options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
  summary: Callable[[Mapping[str, np.ndarray]], str] = lambda columns: ''
  starts: tuple[int, ...] = ()
  marks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
  """What a run minimises, and what can be evaluated, measured, pictured and sampled of it.

  A subclass gives `players`, `init` and `evaluate`; everything else has a default that means
  "nothing of that kind". Images are float32 in [0, 1] on every side of these methods.

  Attributes:
    modules: linen modules by name.
  """

  modules: Mapping[str, nn.Module]

  @property
  @abc.abstractmethod
  def players(self) -> tuple[Player, ...]:
    """The players, in the order in which they act within a step."""

  @abc.abstractmethod
  def init(self, key: jax.Array, batch: Batch) -> Variables:
    """Returns fresh variables of every module for batches shaped like `batch`."""

  @abc.abstractmethod
  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """Returns per-example arrays of one batch.

    Floats [B] are figures and averaged, weighted by `weight` [B] where that is among them, such as
    a row's number of tokens. Integers, and arrays with further axes, are predictions (`prediction`,
    `probability` [B, K]): metrics of predictions read them.

    Args:
      variables: of every module.
      batch: examples; padding is masked out by the caller.
      keys: PRNG keys [B], by the number of each example in the split.
    """

  def derive(self, figures: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures to report, given the averages of `evaluate`; e.g. a perplexity."""
    return dict(figures)

  @property
  def measurements(self) -> Mapping[str, Measurement]:
    """Costly per-example figures, by name; the evaluator `measure` takes one of them."""
    return {}

  @property
  def pictures(self) -> Mapping[str, Picture]:
    """Kinds of pictures of the model, by name."""
    return {}

  @property
  def sampler(self) -> Sampler | None:
    """The sampler; None where there is nothing to sample from, as for a classifier."""
    return None

  @property
  def predictor(self) -> Predictor | None:
    """The predictor for examples without labels; None if there is none, as for a GAN."""
    return None

  @property
  def contest(self) -> Contest | None:
    """The contest between two of the players; None if there is none."""
    return None

  @property
  def remedies(self) -> Mapping[str, Any]:
    """Options to try where samples collapse or a contest is won, the most promising one first.

    Their values by their place in the config, e.g. `{'objective.penalties.r1': 1.0}`.
    """
    return {}

  def _initialised(
    self, module: str, key: jax.Array, *inputs: Any, outputs: tuple[int, ...], **options: Any
  ) -> Any:
    """Returns fresh variables of a module.

    Args:
      module: its name.
      key: of the parameters.
      *inputs: what it is applied to, of one example.
      outputs: the shape of what it must return of them.
      **options: of its call.

    Raises:
      UserError: it returns another shape, which the losses would broadcast without a word.
    """
    applied = self.modules[module]
    returned, variables = applied.init_with_output(key, *inputs, train=False, **options)
    found = getattr(returned, 'shape', None)
    if found != outputs:
      shapes = [f'{leaf.dtype}{list(leaf.shape)}' for leaf in jax.tree.leaves(returned)]
      raise UserError(
        f'config.modules.{module} ({type(applied).__name__}) returns '
        f'{" and ".join(shapes) or "nothing"} of one example, and config.objective needs '
        f'{list(outputs)}; name a module of the kind that the objective applies'
      )
    return variables

  def _outputs(self, module: str, variables: Variables, *inputs: Any, **options: Any) -> Any:
    """Applies a module with `train=False`; returns its outputs."""
    return self.modules[module].apply(variables[module], *inputs, train=False, **options)

  def _apply_training(
    self,
    module: str,
    params: Params,
    mutable: Mutable,
    *inputs: Any,
    rngs: Mapping[str, jax.Array],
    **options: Any,
  ) -> tuple[Any, Mapping[str, Any]]:
    """Applies a module with `train=True`; returns (outputs, its changed collections)."""
    return self.modules[module].apply(
      {'params': params[module], **mutable[module]},
      *inputs,
      train=True,
      mutable=list(mutable[module]),
      rngs=dict(rngs),
      **options,
    )

  def _configure(self, module: str, **fields: Any) -> None:
    """Sets fields of a module that follow from this objective; for `__post_init__` alone."""
    changed = {**self.modules, module: self.modules[module].clone(**fields)}
    object.__setattr__(self, 'modules', changed)
