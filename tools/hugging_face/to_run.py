"""Turns a folder of Hugging Face's into a run: checked first, then written whole or not at all."""

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

# What a run of each family is evaluated on, and how.
_PARENTS = {'gpt2': gpt, 'bert': bert}
# Bytes that the logits of a batch of evaluation may take.
_LOGITS = 2**28
# Names shown of each kind before '…'.
_SHOWN = 4


class Found(NamedTuple):
  """A folder that can be imported.

  Attributes:
    name: key in `FAMILIES`.
    options: of the module, its vocabulary among them, but without `scan` and `remat`.
    entries: name in the whole language model -> that tensor's own name, and where it is.
    fresh: names of those that the folder lacks, and that start afresh.
    unused: of those that have no use here.
    notes: what else a person should know.
  """

  name: str
  options: dict[str, Any]
  entries: Mapping[str, tuple[str, folders.Entry]]
  fresh: Sequence[str]
  unused: Sequence[str]
  notes: Sequence[str]

  @property
  def leaves(self) -> list[Leaf]:
    return FAMILIES[self.name].leaves(self.options)


def import_folder(folder: str, workdir: str, scan: bool) -> None:
  """Writes the run `workdir` of the language model in `folder`, at step 0.

  Tensors are read one at a time, which needs the memory of the parameters and of the largest one;
  the checksums of the checkpoint need about as much again.

  Args:
    folder: holds `config.json`, safetensors and the tokenizer's files.
    workdir: the run's folder, new or empty.
    scan: whether the module scans over its blocks.

  Raises:
    UserError: no such folder or model, a tensor that is missing, not known or of another shape, a
      damaged file, no tokenizer, or `workdir` holds something.
  """
  folder, workdir = str(files.path(folder)), str(files.path(workdir))
  check_empty(Path(workdir), '--workdir')
  found = inspect(Path(folder))
  tokenizer = tokenization.read(folder)
  config, notes = make_config(found, tokenizer, workdir, scan)
  session = _open(config, tokenizer)
  number = sum(leaf.size for leaf in jax.tree.leaves(session.abstract.params))
  print(f'found    a {FAMILIES[found.name].title} of {number:,} parameters in {folder}', flush=True)
  for what, names in (('unused', found.unused), ('fresh', found.fresh)):
    if names:
      print(f'{what:9}{len(names)}: {_some(names)}')
  for note in (*found.notes, *notes):
    print(f'note     {note}', flush=True)
  with new_folder(Path(workdir), '--workdir') as part:
    run.claim(str(part), config, session.spec)
    _save(part, session, _state(session, found), folder)
  print(f'written  {workdir}; {_next(session, workdir)}')


# --- what is there --------------------------------------------------------------------------------


def inspect(folder: Path) -> Found:
  """Returns what is in a folder, if all of it fits.

  Raises:
    UserError: as `import_folder`.
  """
  config = folders.read_config(folder)
  name = _family_of(config)
  family = FAMILIES[name]
  options = family.options(config)
  entries = folders.find_tensors(folder)
  known = {new: (old, entries[old]) for new, old in family.canonical([*entries]).items()}
  unused = [new for new in known if re.search(family.unused, new)]
  known = {new: entry for new, entry in known.items() if new not in unused}
  notes = _tie(family, options, known)
  wanted = expected(family.leaves(options))
  # A head is there or not: half of one is damage.
  headed = not family.head or any(re.search(family.head, new) for new in known)
  fresh = [] if headed else [new for new in wanted if re.search(family.head, new)]
  _check_tensors(folder, family, wanted, known, fresh)
  shares = {option: config.get(option) for option in family.dropouts}
  if len(set(shares.values())) > 1:
    said = ', '.join(f'{option} {value}' for option, value in shares.items())
    notes.append(f'fine-tuning drops one share, {options["dropout"]}, where there were {said}')
  return Found(name, options, known, fresh, unused, notes)


def _family_of(config: Mapping[str, Any]) -> str:
  kind, classes = config.get('model_type'), config.get('architectures') or []
  possible = [name for family in FAMILIES.values() for name in family.architectures]
  for given in classes if kind in FAMILIES else [kind]:
    if kind not in FAMILIES or given not in FAMILIES[kind].architectures:
      raise UserError(
        f'config.json describes a model "{given}"{nearest(given, possible)}, which cannot be '
        f'imported; these can: {", ".join(possible)}'
      )
  return kind


def _tie(
  family: Family, options: dict[str, Any], known: dict[str, tuple[str, folders.Entry]]
) -> list[str]:
  """Settles what the logits are products with, as transformers does; returns what to say of it.

  Where `config.json` ties them to the embedding and one of the two is stored, it is both; where
  both are and differ, they are not tied.
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
  wanted: Mapping[str, Shape],
  known: Mapping[str, tuple[str, folders.Entry]],
  fresh: Sequence[str],
) -> None:
  """Raises UserError naming tensors that are missing, not known, or of another shape."""
  missing = [new for new in wanted if new not in known and new not in fresh]
  extra = [old for new, (old, _) in known.items() if new not in wanted]
  other = [
    f'{known[new][0]} {known[new][1].shape} instead of {shape}'
    for new, shape in wanted.items()
    if new in known and known[new][1].shape != shape
  ]
  kinds = (('missing', missing), ('not known', extra), ('of another shape', other))
  parts = [f'{kind}: {_some(names)}' for kind, names in kinds if names]
  if parts:
    raise UserError(
      f'the tensors of {folder} are not those of a {family.title} of the sizes in its config.json '
      f'({"; ".join(parts)}); fetch or save the folder again'
    )


def _some(names: Sequence[str]) -> str:
  more = f', … ({len(names) - _SHOWN} more)' if len(names) > _SHOWN else ''
  return ', '.join(names[:_SHOWN]) + more


# --- the run --------------------------------------------------------------------------------------


def make_config(
  found: Found, tokenizer: tokenization.Tokenizer, workdir: str, scan: bool
) -> tuple[ConfigDict, list[str]]:
  """The config of the run, and what a person should know of it.

  Raises:
    UserError: the tokenizer has tokens that the model does not know.
  """
  options = {**found.options, 'scan': scan, 'remat': False}
  vocabulary, notes = options.pop('vocabulary'), []
  if tokenizer.size > vocabulary:
    raise UserError(
      f'the tokenizer has {tokenizer.size:,} tokens and the model knows {vocabulary:,}; put the '
      "model's own tokenizer files into the folder"
    )
  config = _PARENTS[found.name].get_config()
  config.modules.model = dict(name='transformer', **options)
  if tokenizer.size < vocabulary:
    # Models are given more, for a round number of them is faster.
    notes.append(f'the last {vocabulary - tokenizer.size} of {vocabulary:,} tokens have no text')
    config.modules.model.vocabulary = vocabulary
    config.objective.vocabulary = vocabulary
  # It has no state, so that the checkpoint is the parameters alone.
  config.optimizer.model = optimizer('sgd', 1e-3)
  config.data.batch_size = 1
  config.data.text.update(tokenizer=workdir, vocabulary=0, specials=(), length=options['context'])
  config.checkpoint.best = ''
  row = 4 * options['context'] * vocabulary
  config.evaluators.test.batch_size = max(1, _LOGITS // row)
  del config.evaluators.speed
  return config, notes


def _open(config: ConfigDict, tokenizer: tokenization.Tokenizer) -> Session:
  """The session of the config. Its data are described, not opened: nothing is taken from them."""
  data, text = config.data, config.data.text
  features = {'tokens': ((text.length + text.next_token,), 'int32'), 'length': ((), 'int32')}
  spec = Spec(data.name, data.split, 0, features, 0, 'none', tokenizer=tokenizer.to_json())
  here = config.copy_and_resolve_references()
  here.data.batch_size = jax.device_count()
  return open_session(here, spec)._replace(config=config)


def _state(session: Session, found: Found) -> State:
  """The state at step 0; every parameter is in its place before the next one is read."""
  leaves = found.leaves
  # Every parameter is the leaf of one number, or where blocks are scanned those of several.
  numbers = unflatten_dict({tuple(leaf.path.split('/')): i for i, leaf in enumerate(leaves)})
  if session.objective.modules['model'].scan:
    numbers = stacked(numbers, stack=np.array)

  def read(path: Any, place: jax.ShapeDtypeStruct, number: int | np.ndarray) -> jax.Array:
    parts = [leaves[i] for i in np.ravel(number)]
    if any(name in found.fresh for part in parts for name in part.tensors):
      return _initial(session, path)
    array = np.empty((len(parts), *parts[0].shape), place.dtype)
    for i, part in enumerate(parts):
      array[i] = part.pack(*(folders.read_tensor(*found.entries[name]) for name in part.tensors))
    return jax.device_put(array.reshape(place.shape), place.sharding)

  params = jax.tree_util.tree_map_with_path(read, session.lane_abstract.params, {'model': numbers})
  optimizers = {name: made.init(params) for name, made in session.optimizers.items()}
  state = State(
    step=jnp.int32(0),
    params=params,
    mutable={'model': {}},
    opt_state=optimizers,
    ema={},
    key=jax.random.key(session.train.seed),
  )
  return jax.device_put(state, session.state_shardings)


def _initial(session: Session, path: Any) -> jax.Array:
  """The parameter at a path as a new run would have it; the others are not made."""

  def make() -> jax.Array:
    leaf = session.make_state(session.train.seed).params
    for entry in path:
      leaf = leaf[entry.key]
    return leaf

  return jax.jit(make)()


def _save(folder: Path, session: Session, state: State, source: str) -> None:
  """Writes the checkpoint."""
  checkpoints = Checkpoints(str(folder), **to_plain(session.config.checkpoint))
  meta = checkpoint_meta(session, 0, [Patience()], [str(Path(source).resolve())])
  checkpoints.save(0, state, meta, [])
  checkpoints.close()


def _next(session: Session, workdir: str) -> str:
  script = 'evaluate.py' if session.objective.sampler is None else 'sample.py'
  return (
    f'next: python {script} --workdir={workdir}, or to fine-tune it: '
    f'python train.py --config=configs/finetune.py:{workdir}'
  )
