"""Imports the folder of a Hugging Face model as a run: checked first, then written atomically."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

import files
from configs import bert, gpt
from configs.defaults import optimizer
from data.spec import Spec
from data.text import tokenization
from data.text.hugging_face import unknown_ids
from data.text.subword import Subword
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.metadata import checkpoint_meta
from engine.patience import Patience
from engine.session import Session, open_session
from engine.state import State
from errors import UserError, nearest
from models.transformer import stacked
from tools.hugging_face import folder as folders
from tools.hugging_face.layout import FAMILIES, Family, Leaf, Shape, expected
from tools.hugging_face.new_folder import check_empty, new_folder

# The config of each family that a run starts from, with its evaluators.
_PARENTS = {'gpt2': gpt, 'bert': bert}
# Largest size in bytes of the logits of an evaluation batch.
_LOGITS = 2**28
# Number of names that a line shows before '…'.
_SHOWN = 4


class Source(NamedTuple):
  """The model in a folder, checked to be importable.

  Attributes:
    family: key in `FAMILIES`.
    options: options of the module, with `vocabulary`, without `scan` and `remat`.
    entries: canonical name of a tensor -> (its name in the folder, its entry).
    fresh: canonical names of the tensors that the folder lacks, and that are initialised afresh.
    unused: canonical names of the tensors that the module does not use.
    notes: further remarks to print.
  """

  family: str
  options: dict[str, Any]
  entries: Mapping[str, tuple[str, folders.Entry]]
  fresh: Sequence[str]
  unused: Sequence[str]
  notes: Sequence[str]

  @property
  def leaves(self) -> list[Leaf]:
    """The parameters of the module."""
    return FAMILIES[self.family].leaves(self.options)


def import_folder(folder: str, workdir: str, scan: bool) -> None:
  """Writes the language model in `folder` as the run `workdir`, at step 0.

  Tensors are read one at a time, which needs memory for the parameters and for one more copy of the
  largest; the checksums of the checkpoint need about as much again.

  Args:
    folder: has `config.json`, safetensors and the tokenizer's files.
    workdir: the run's folder, new or empty.
    scan: whether the module scans over its blocks.

  Raises:
    UserError: the folder does not exist or has no such model; a tensor is missing, unknown or of
      another shape; a file is damaged; there is no tokenizer; or `workdir` is not empty.
  """
  folder, workdir = str(files.path(folder)), str(files.path(workdir))
  check_empty(Path(workdir), '--workdir')
  source = inspect(Path(folder))
  tokenizer = tokenization.read(folder)
  config, notes = make_config(source, tokenizer, workdir, scan)
  session = _open(config, tokenizer)
  number = sum(leaf.size for leaf in jax.tree.leaves(session.abstract.params))
  title = FAMILIES[source.family].title
  print(f'found    a {title} of {number:,} parameters in {folder}', flush=True)
  for what, names in (('unused', source.unused), ('fresh', source.fresh)):
    if names:
      print(f'{what:9}{len(names)}: {_shortened(names)}')
  lost = unknown_ids(files.path(folder), tokenizer.size)
  if lost:
    notes.append(f'left out {", ".join(lost)}: no token has this number')
  for note in (*source.notes, *notes):
    print(f'note     {note}', flush=True)
  with new_folder(Path(workdir), '--workdir') as part:
    run.claim(str(part), config, session.spec)
    _save(part, session, _make_state(session, source), folder)
  print(f'written  {workdir}; {_next_commands(session, workdir)}')


# --- the folder -----------------------------------------------------------------------------------


def inspect(folder: Path) -> Source:
  """Returns the model in a folder, after checking all of its tensors without reading them.

  Raises:
    UserError: see `import_folder`.
  """
  config = folders.read_config(folder)
  name = _family_of(config)
  family = FAMILIES[name]
  options = family.options(config)
  entries = folders.find_tensors(folder)
  if options['layers'] > len(entries):  # Each has several, which are listed below.
    raise UserError(
      f'config.json has {options["layers"]:,} layers, and the files of {folder} only '
      f'{len(entries):,} tensors; download or save the folder again'
    )
  known = {new: (old, entries[old]) for new, old in family.canonical([*entries]).items()}
  unused = [new for new in known if re.search(family.unused, new)]
  known = {new: entry for new, entry in known.items() if new not in unused}
  notes = _resolve_tying(family, options, known)
  shapes = expected(family.leaves(options))
  # A model may lack the whole head, which is then initialised, but not a part of it.
  has_head = not family.head or any(re.search(family.head, new) for new in known)
  fresh = [] if has_head else [new for new in shapes if re.search(family.head, new)]
  _check_tensors(folder, family, shapes, known, fresh)
  rates = {option: config.get(option) for option in family.dropouts}
  if len(set(rates.values())) > 1:
    listed = ', '.join(f'{option} {value}' for option, value in rates.items())
    notes.append(f'fine-tuning uses one dropout rate, {options["dropout"]}, instead of {listed}')
  return Source(name, options, known, fresh, unused, notes)


def _family_of(config: Mapping[str, Any]) -> str:
  kind, classes = config.get('model_type'), config.get('architectures') or []
  is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
  if not isinstance(kind, str) or not is_list:
    raise UserError(
      f'config.json has model_type={kind!r} and architectures={classes!r}, and must have a word '
      'and a list of words, such as "gpt2" and ["GPT2LMHeadModel"]; download the file again'
    )
  possible = [name for family in FAMILIES.values() for name in family.architectures]
  for name in classes if kind in FAMILIES else [kind]:
    if kind not in FAMILIES or name not in FAMILIES[kind].architectures:
      raise UserError(
        f'config.json describes a model "{name}"{nearest(name, possible)}, which cannot be '
        f'imported; these can: {", ".join(possible)}'
      )
  return kind


def _resolve_tying(
  family: Family, options: dict[str, Any], known: dict[str, tuple[str, folders.Entry]]
) -> list[str]:
  """Decides as transformers does whether the output matrix is tied; returns notes to print.

  If `config.json` ties it to the embedding and only one of the two is stored, it is used for both;
  if both are stored and differ, they are not tied. Changes `options` and `known`.
  """
  if not options['tied'] or family.untied not in known:
    return []
  own = known.pop(family.untied)
  other = known.setdefault(family.embedding, own)
  if own is other or _equal(own, other):
    return []
  known[family.untied] = own
  options['tied'] = False
  return [f'{own[0]} and {other[0]} differ, so they are not tied, though config.json ties them']


def _equal(a: tuple[str, folders.Entry], b: tuple[str, folders.Entry]) -> bool:
  return a[1].shape == b[1].shape and np.array_equal(
    folders.read_tensor(*a), folders.read_tensor(*b)
  )


def _check_tensors(
  folder: Path,
  family: Family,
  shapes: Mapping[str, Shape],
  known: Mapping[str, tuple[str, folders.Entry]],
  fresh: Sequence[str],
) -> None:
  """Raises UserError naming tensors that are missing, unknown, or of another shape or dtype."""
  missing = [new for new in shapes if new not in known and new not in fresh]
  extra = [old for new, (old, _) in known.items() if new not in shapes]
  other = [
    f'{known[new][0]} {known[new][1].shape} instead of {shape}'
    for new, shape in shapes.items()
    if new in known and known[new][1].shape != shape
  ]
  dtypes = [
    f'{known[new][0]} {known[new][1].dtype} instead of {" or ".join(folders.FLOATS)}'
    for new in shapes
    if new in known and known[new][1].dtype not in folders.FLOATS
  ]
  kinds = (
    ('missing', missing),
    ('unknown', extra),
    ('of another shape', other),
    ('of another dtype', dtypes),
  )
  parts = [f'{kind}: {_shortened(names)}' for kind, names in kinds if names]
  if parts:
    raise UserError(
      f'the tensors of {folder} are not those of a {family.title} of the sizes in its config.json '
      f'({"; ".join(parts)}); download or save the folder again'
    )


def _shortened(names: Sequence[str]) -> str:
  """Returns the first names, and the number of the others."""
  more = f', … ({len(names) - _SHOWN} more)' if len(names) > _SHOWN else ''
  return ', '.join(names[:_SHOWN]) + more


# --- the run --------------------------------------------------------------------------------------


def make_config(
  source: Source, tokenizer: tokenization.Tokenizer, workdir: str, scan: bool
) -> tuple[ConfigDict, list[str]]:
  """Returns the config of the run, and notes to print.

  Raises:
    UserError: the tokenizer has more tokens than the model.
  """
  options = {**source.options, 'scan': scan, 'remat': False}
  vocabulary, notes = options.pop('vocabulary'), []
  if tokenizer.size > vocabulary:
    raise UserError(
      f'the tokenizer has {tokenizer.size:,} tokens and the model only {vocabulary:,}; put the '
      "model's own tokenizer files into the folder"
    )
  config = _PARENTS[source.family].get_config()
  config.modules.model = dict(name='transformer', **options)
  if tokenizer.size < vocabulary:
    # Vocabularies of models are padded to a round number, which is faster.
    notes.append(f'the last {vocabulary - tokenizer.size} of {vocabulary:,} tokens have no text')
    config.modules.model.vocabulary = vocabulary
    config.objective.vocabulary = vocabulary
  named = tokenizer.named_ids().get('eos_token') if isinstance(tokenizer, Subword) else None
  if named is not None and named not in tokenizer.ends:
    notes.append(
      f'texts end at {", ".join(map(str, tokenizer.ends))}, the eos_token_id of the model, and not '
      f'at {named}, the eos_token of the tokenizer'
    )
  # SGD has no state, so the checkpoint is the parameters alone.
  config.optimizer.model = optimizer('sgd', 1e-3)
  config.data.batch_size = 1
  config.data.text.update(tokenizer=workdir, vocabulary=0, specials=(), length=options['context'])
  config.checkpoint.best = ''
  row = 4 * options['context'] * vocabulary
  config.evaluators.test.batch_size = max(1, _LOGITS // row)
  del config.evaluators.speed
  return config, notes


def _open(config: ConfigDict, tokenizer: tokenization.Tokenizer) -> Session:
  """Opens a session with a description of its data instead of the data, which are not needed."""
  data, text = config.data, config.data.text
  features = {'tokens': ((text.length + text.next_token,), 'int32'), 'length': ((), 'int32')}
  spec = Spec(data.name, data.split, 0, features, 0, 'none', tokenizer=tokenizer.to_json())
  here = config.copy_and_resolve_references()
  here.data.batch_size = jax.device_count()
  return open_session(here, spec)._replace(config=config)


def _make_state(session: Session, source: Source) -> State:
  """Makes the state at step 0; each parameter is on its devices before the next one is read."""
  leaves = source.leaves
  # A tree with the number of each parameter's leaf; of scanned blocks, the numbers of all blocks.
  numbers = unflatten_dict({tuple(leaf.path.split('/')): i for i, leaf in enumerate(leaves)})
  if session.objective.modules['model'].scan:
    numbers = stacked(numbers, stack=np.array)

  def read(path: Any, target: jax.ShapeDtypeStruct, number: int | np.ndarray) -> jax.Array:
    parts = [leaves[i] for i in np.ravel(number)]
    if any(name in source.fresh for part in parts for name in part.tensors):
      return _initial(session, path)
    array = np.empty((len(parts), *parts[0].shape), target.dtype)
    for i, part in enumerate(parts):
      array[i] = part.pack(*(folders.read_tensor(*source.entries[name]) for name in part.tensors))
    return jax.device_put(array.reshape(target.shape), target.sharding)

  params = jax.tree_util.tree_map_with_path(read, session.lane_abstract.params, {'model': numbers})
  opt_state = {name: optimizer.init(params) for name, optimizer in session.optimizers.items()}
  state = State(
    step=jnp.int32(0),
    params=params,
    mutable={'model': {}},
    opt_state=opt_state,
    ema={},
    key=jax.random.key(session.train.seed),
  )
  return jax.device_put(state, session.state_shardings)


def _initial(session: Session, path: Any) -> jax.Array:
  """Returns the initial value of the parameter at `path`; XLA does not compute the others."""

  def make() -> jax.Array:
    leaf = session.make_state(session.train.seed).params
    for entry in path:
      leaf = leaf[entry.key]
    return leaf

  return jax.jit(make)()


def _save(folder: Path, session: Session, state: State, source: str) -> None:
  """Writes the checkpoint at step 0."""
  checkpoints = Checkpoints(str(folder), **to_plain(session.config.checkpoint))
  meta = checkpoint_meta(session, 0, [Patience()], [str(Path(source).resolve())])
  checkpoints.save(0, state, meta, [])
  checkpoints.close()


def _next_commands(session: Session, workdir: str) -> str:
  script = 'evaluate.py' if session.objective.sampler is None else 'sample.py'
  return (
    f'next: python {script} --workdir={workdir}, or to fine-tune it: '
    f'python train.py --config=configs/finetune.py:{workdir}'
  )
