"""A run's folder: which config it belongs to, and who may write there."""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ml_collections import ConfigDict

import files
from data.own.names import absolute_names, own_files, split_names
from data.own.options import Image, Jsonl, Table
from data.spec import Spec, tokenizer_key
from data.text import tokenization
from engine import lock
from engine.build import to_plain
from engine.checksum import checksum, is_whole, with_sum
from engine.code_version import ROOT, code_version
from engine.runtime import versions
from errors import UserError

CONFIG, DESCRIPTION, TOKENIZER = 'config.json', 'run.json', 'tokenizer.json'
# Rises when runs of before can no longer be read; the commit is the last one that reads those.
FORMAT, LAST_COMMIT = 3, '62ac1e2'

# What runs of this format may lack, since they were made before there was any: options of sections,
# and whole sections.
_YOUNGER_SECTIONS = ('report',)
_YOUNGER: Mapping[str, Any] = {
  'report': {'trackers': ['tensorboard']},
  'train': {'latency_hiding': False, 'determinism': 'default'},
  'data': {
    # Not asked of `data.section`, which imports jax: a script reads runs before jax starts.
    'decoded_mb': 16384,
    'order_block': 0,
    'corrupt': 'refuse',
    'image': json.loads(json.dumps(dataclasses.asdict(Image()))),
    'table': json.loads(json.dumps(dataclasses.asdict(Table()))),
    'jsonl': json.loads(json.dumps(dataclasses.asdict(Jsonl()))),
  },
}

# Options that optimizers, modules and objectives in runs of this format may lack, by the file that
# their `name` begins with.
_EVERY = ''
_YOUNGER_BY_NAME: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
  'optimizer': {_EVERY: {'state_dtype': 'float32', 'offload': False}},
  'modules': {
    'transformer': {'unroll': 1, 'remat_policy': 'nothing_saveable', 'residual': 'float32'}
  },
  'objective': {'causal_lm': {'loss_chunks': 0}},
}

# Options that say what a run shows or where it computes, which changes no result.
WITHOUT_EFFECT = (
  'train.log_every',
  'train.sample_every',
  'train.dispatch',
  'train.latency_hiding',
  'report',
  'mesh',
  'sharding',
  'profile',
  'data.data_dir',
  'data.resident_mb',
  'data.workers',
  'data.decoded_mb',
)
# Those and what says how long a run goes and what is kept of it: all that a resumed run may change.
FREE = (
  'train.steps',
  'train.epochs',
  'train.patience',
  'train.minimum_gain',
  'train.determinism',
  'checkpoint',
  'evaluators',
  # Examples that it leaves out make the data another, which is not trained on any further.
  'data.corrupt',
  *WITHOUT_EFFECT,
)


def claim(workdir: str, config: ConfigDict, spec: Spec, steps: int | None = None) -> list[str]:
  """Makes `workdir` the run of `config`, or checks that it is.

  Args:
    workdir: the folder, made if it is not there.
    config: the whole config.
    spec: of the training split, kept with its tokenizer so that sampling needs no data.
    steps: the length of the run, for whoever lists runs; None where it is not trained.

  Returns:
    One line per option that differs from the last call's and may.

  Raises:
    UserError: the folder belongs to another config or tokenizer, or cannot be written.
  """
  changed = changes(workdir, config, spec)
  folder, plain = _folder(workdir), _as_json(config)
  written = [_read(workdir, CONFIG, _SAME_CONFIG)] if (folder / CONFIG).exists() else []
  description = {
    'format': FORMAT,
    'data': spec.to_json(),
    'versions': versions(),
    'code': code_version(),
    'steps': steps,
    # The config of before too: it is still there where the process is killed in between.
    'configs': [checksum(each) for each in (*written, plain)],
    'saved': has_saved(workdir),
  }
  try:
    if spec.tokenizer:
      files.write_text(folder / TOKENIZER, spec.tokenizer)
    files.write_json(folder / DESCRIPTION, with_sum(description))
    # The last one: a folder with a config is a run, also where the process was killed here.
    files.write_json(folder / CONFIG, plain)
  except OSError as error:
    raise _refused(workdir, error) from error
  return changed


def has_saved(workdir: str) -> bool:
  """Whether a run stopped or finished in `workdir`, and so left a checkpoint."""
  if not (files.path(workdir) / CONFIG).exists() or _lost_its_description(workdir):
    return False
  return bool(read_description(workdir).get('saved', False))


def note_saved(workdir: str) -> None:
  """Notes in run.json that the run's checkpoint is on disk; UserError if it cannot be written."""
  description = {**read_description(workdir), 'saved': True}
  try:
    files.write_json(files.path(workdir) / DESCRIPTION, with_sum(description))
  except OSError as error:
    raise _refused(workdir, error) from error


def changes(workdir: str, config: ConfigDict, spec: Spec) -> list[str]:
  """Returns one line per option that differs from those of the run in `workdir` and may.

  Raises:
    UserError: the folder belongs to another config or tokenizer, or to other examples.
  """
  if not (_folder(workdir) / CONFIG).exists():
    return []
  old, new = read_config(workdir), _as_json(config)
  same_tokenizer = _tokenizer_key(workdir) in (None, spec.tokenizer_key)
  for key in {'name', 'test_name'} & {*old['data']}:
    old['data'][key] = absolute_names(old['data'][key])  # runs of before have what was given
  changed, moved = differences(old, new), _moved(old, new, spec.tokenizer if same_tokenizer else '')
  stored = _stored_data(workdir)
  same = (stored.get('identity'), stored.get('n')) == (spec.identity, spec.n)
  if same:
    moved |= _moved_files(old['data'], new['data'])
  refused = [line for key, line in changed.items() if not _is_free(key) and key not in moved]
  if refused:
    raise UserError(
      f'{workdir} holds a run of another config ({"; ".join(refused)}); choose another '
      '--workdir, or give the options of that run'
    )
  if not same_tokenizer:
    raise UserError(
      f'{workdir} holds a run with another tokenizer than {spec.name} makes now: the text or '
      f'{config.data.text.tokenizer} changed; choose another --workdir'
    )
  # Before anything is written: what samples are called is read from run.json.
  if not same and 'n' in stored and _has_checkpoints(workdir):
    raise other_examples(stored['n'], spec)
  return [*changed.values()]


def _has_checkpoints(workdir: str) -> bool:
  folder = files.path(workdir) / 'checkpoints'
  return folder.is_dir() and bool(files.entries(folder))


def other_examples(n: int, spec: Spec) -> UserError:
  """The error for a run that cannot go on, since its examples have changed.

  Args:
    n: how many examples there were.
    spec: of the training split as it is now.
  """
  own = [name for name in split_names(spec.name) if own_files(name)]
  way_back = 'put that data back, point --config.data.data_dir at it'
  if own:
    way_back = f'put the files of {" and ".join(own)} back as they were'
  return UserError(f'{changed_examples(n, spec)}; {way_back}, or train in another --workdir')


def changed_examples(n: int, spec: Spec) -> str:
  """Says that the examples of a run's training split have changed; see `other_examples`."""
  changed = 'as many, but others' if n == spec.n else f'{n:,} then, {spec.n:,} now'
  return (
    f'the examples of {spec.name} {spec.split} are not those that the run was trained on '
    f'({changed})'
  )


def _as_json(config: ConfigDict) -> dict[str, Any]:
  """A config as config.json gives it back."""
  return json.loads(json.dumps(to_plain(config)))


def read_config(workdir: str) -> dict[str, Any]:
  """Returns the config that a run was made with, as plain dicts.

  Raises:
    UserError: the folder is no run, of another format, or its config is unreadable.
  """
  if not _lost_its_description(workdir):
    read_description(workdir)
  return _completed(_YOUNGER, _read(workdir, CONFIG, _SAME_CONFIG))


def _completed(younger: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
  """A stored config with the sections that it lacks, at its top or in a section."""
  whole = {key: younger[key] for key in _YOUNGER_SECTIONS if key in younger}
  inner = {
    key: {**younger[key], **value}
    for key, value in stored.items()
    if key in younger and isinstance(value, Mapping)
  }
  return _with_younger_options({**whole, **stored, **inner})


def _with_younger_options(stored: dict[str, Any]) -> dict[str, Any]:
  """A stored config with the options that its optimizers, modules and objective lack."""

  def filled(section: Any, younger: Mapping[str, Mapping[str, Any]]) -> Any:
    if not isinstance(section, Mapping):
      return section
    file = str(section.get('name', '')).partition('.')[0]
    return {**younger.get(_EVERY, {}), **younger.get(file, {}), **section}

  whole = dict(stored)
  for place, younger in _YOUNGER_BY_NAME.items():
    section = stored.get(place)
    if place == 'objective' and section is not None:
      whole[place] = filled(section, younger)
    elif isinstance(section, Mapping):
      whole[place] = {key: filled(entry, younger) for key, entry in section.items()}
  return whole


_SAME_CONFIG = (
  'put it back, or delete it and run train.py with the same --config and options, which goes on '
  'from the newest checkpoint'
)


def damaged_config(workdir: str, reason: str) -> UserError:
  """Returns the error for a run whose config cannot be used."""
  return _damaged(workdir, CONFIG, f'or of another version: {reason}', _SAME_CONFIG)


def read_description(workdir: str) -> dict[str, Any]:
  """Returns what run.json says of a run.

  `format`, `data` (a data set's description), `versions`, `code`, `steps`, and `saved`: whether it
  stopped or finished once, with a checkpoint.

  Raises:
    UserError: the folder is no run, of another format, or its description is unreadable.
  """
  way_out = _new(workdir)
  if _lost_its_description(workdir):
    raise UserError(
      f'{_folder(workdir) / DESCRIPTION} is gone; run train.py --workdir={workdir}, which '
      'writes it anew'
    )
  description = _read(workdir, DESCRIPTION, way_out)
  if not is_whole(description):
    raise _damaged(workdir, DESCRIPTION, 'it differs from what was written', way_out)
  found = description.get('format', 1)
  if found != FORMAT:
    raise UserError(
      f'{workdir} is a run of format {found}, and this version reads format {FORMAT}; commit '
      f'{LAST_COMMIT} is the last that reads format 1; train again in another --workdir'
    )
  if not isinstance(description.get('data'), dict):
    raise _damaged(workdir, DESCRIPTION, 'it describes no data', way_out)
  return description


def _lost_its_description(workdir: str) -> bool:
  """Whether a folder is a run whose run.json is gone; one of Hugging Face has no checkpoints."""
  folder = _folder(workdir)
  kept = all((folder / name).exists() for name in (CONFIG, 'checkpoints'))
  return kept and not (folder / DESCRIPTION).exists()


def read_tokenizer(workdir: str) -> str:
  """Returns the JSON of a run's tokenizer; '' for a run that has none, or where it is gone.

  Raises:
    UserError: it is not the one that the run was trained with.
  """
  key, path = _tokenizer_key(workdir), _folder(workdir) / TOKENIZER
  if key == '' or not path.exists():
    return ''
  try:
    text = path.read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise _damaged(workdir, TOKENIZER, _reason(error), _NEW_TOKENIZER) from error
  if key not in (None, tokenizer_key(text)):
    raise _damaged(workdir, TOKENIZER, 'the run has another tokenizer', _NEW_TOKENIZER)
  return text


def _tokenizer_key(workdir: str) -> str | None:
  """The hash of the tokenizer that a run was trained with; None where it is not known."""
  if not (_folder(workdir) / DESCRIPTION).exists():
    return None
  return read_description(workdir)['data'].get('tokenizer', '')


_NEW_TOKENIZER = (
  'put it back, or delete it and run train.py, which makes it again from the same text'
)


def read_spec(workdir: str) -> Spec:
  """Returns the description of a run's training split, with the tokenizer.

  Raises:
    UserError: the folder is no run, or damaged.
  """
  stored = read_description(workdir)['data']
  try:
    spec = Spec.from_json(stored)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise _damaged(
      workdir, DESCRIPTION, f'{type(error).__name__}: {error}', _new(workdir)
    ) from error
  spec = spec._replace(tokenizer=read_tokenizer(workdir))
  if spec.tokenizer_key != stored.get('tokenizer', ''):
    raise _damaged(workdir, TOKENIZER, 'it is gone', _NEW_TOKENIZER)
  return spec


def _new(workdir: str) -> str:
  return f'delete it and run train.py --workdir={workdir}, which writes it anew'


def check_origin(workdir: str, meta: Mapping[str, Any], config: ConfigDict) -> None:
  """Raises UserError unless a checkpoint is of a run of `config`.

  Args:
    workdir: the folder of the run.
    meta: the description of the checkpoint.
    config: that the run in the folder has.
  """
  if 'config' not in meta:
    return
  changed = differences(_completed(_YOUNGER, meta['config']), _as_json(config))
  other = [line for key, line in changed.items() if not _is_free(key) and not _MAY_MOVE(key)]
  # Files of one's own may have moved, if they hold the same examples.
  if 'data.name' in changed and meta.get('data') != _identity(workdir):
    other.append(changed['data.name'])
  if other:
    step = int(meta['step'])
    raise UserError(
      f'checkpoint {step} in {workdir} is of a run of another config ({"; ".join(other[:5])}): put '
      f'back the {CONFIG} or the checkpoint that belongs there, or move checkpoints/{step} away to '
      'go on from an earlier one'
    )


# Options that name a run, a tokenizer or files, which may move after a checkpoint was written.
_MAY_MOVE = re.compile(r'init_from\..*\.run|data\.text\.tokenizer|data\.name').fullmatch


def _stored_data(workdir: str) -> Mapping[str, Any]:
  """The description of a run's training split; empty where run.json is gone."""
  return {} if _lost_its_description(workdir) else read_description(workdir)['data']


def _identity(workdir: str) -> str | None:
  """The identity of a run's training examples; None where it is not known."""
  return _stored_data(workdir).get('identity')


def warn_of_edits(workdir: str) -> None:
  """Says on stderr where the config of a run is not as it was written."""
  sums = read_description(workdir).get('configs')
  # As it stands there, without the options that were added since.
  if sums is not None and checksum(_read(workdir, CONFIG, _SAME_CONFIG)) not in sums:
    print(
      f'warning: {_folder(workdir) / CONFIG} is not as train.py wrote it: it was edited, or is '
      'damaged',
      file=sys.stderr,
    )


def _folder(workdir: str) -> files.Path:
  return files.named_path(workdir, '--workdir')


def _read(workdir: str, name: str, way_out: str) -> dict[str, Any]:
  path = _folder(workdir) / name
  try:
    found = files.read_json(path)
  except (FileNotFoundError, NotADirectoryError):
    raise UserError(
      f'{workdir} is no run: there is no {path}; give the --workdir that train.py wrote to'
    ) from None
  except (OSError, ValueError) as error:
    raise _damaged(workdir, name, _reason(error), way_out) from error
  if not isinstance(found, dict) or not found:
    raise _damaged(workdir, name, 'it holds no mapping', way_out)
  return found


def _damaged(workdir: str, name: str, reason: str, way_out: str) -> UserError:
  return UserError(f'{_folder(workdir) / name} is damaged ({reason}); {way_out}')


def _reason(error: Exception) -> str:
  return (isinstance(error, OSError) and error.strerror) or str(error)


@contextmanager
def only_writer(workdir: str) -> Iterator[None]:
  """Holds the folder's lock, which is dropped when the process ends in whatever way.

  Raises:
    UserError: another process trains there, or the folder cannot be made or written.
  """
  folder = _folder(workdir)
  hold = lock.hold_file if files.is_local(folder) else lock.hold_object
  with ExitStack() as stack:
    try:
      files.make_folder(folder)
      stack.enter_context(hold(folder / '.lock', workdir))
    except OSError as error:
      raise _refused(workdir, error) from error
    yield


def check_place(workdir: str) -> None:
  """Raises UserError where `workdir` cannot be written, or holds something else; makes nothing."""
  _folder(workdir)  # refuses what is no path
  if files.is_local(workdir):
    occupied = _occupied(files.absolute(workdir))
    if occupied:
      raise UserError(
        f'--workdir={workdir} {occupied}, and a run needs a folder of its own; give another one, '
        'such as runs/NAME'
      )
  reason = files.why_not_written(workdir)
  if reason:
    raise UserError(f'cannot write to --workdir={workdir}: {reason}')


def _occupied(folder: files.Path) -> str:
  """Why a folder cannot hold a run, e.g. 'is this project'; '' if it can."""
  for place, what in ((ROOT, 'this project'), (os.path.expanduser('~'), 'the home folder')):
    inside = files.absolute(place)
    if inside.is_relative_to(folder):
      return f'{"is" if inside == folder else "holds"} {what}'
  if (folder / CONFIG).exists():
    return ''
  runs = [each.name for each in files.entries(folder) if (each / DESCRIPTION).is_file()]
  return f'holds other runs ({", ".join(runs[:3])}{", …" if runs[3:] else ""})' if runs else ''


def check_still_there(workdir: str) -> None:
  """Raises UserError where the folder of a run that is training was moved or removed."""
  if not (_folder(workdir) / CONFIG).exists():
    raise UserError(
      f'{workdir} was moved or removed while it was trained in, so that nothing more can be saved '
      'there; where it was moved, go on with --workdir set to its new place'
    )


def _refused(workdir: str, error: OSError) -> UserError:
  reason = files.why_not_written(workdir, error)
  return UserError(f'cannot write to --workdir={workdir}: {reason}')


def differences(old: Any, new: Any, prefix: str = '') -> dict[str, str]:
  """Returns `{key: 'key: old → new'}` for every leaf of two configs, of JSON, that differs."""
  if isinstance(old, dict) and isinstance(new, dict):
    found = {}
    for key in sorted({*old, *new}):
      path = f'{prefix}.{key}' if prefix else key
      found.update(differences(old.get(key, '(none)'), new.get(key, '(none)'), path))
    return found
  return {} if old == new else {prefix: f'{prefix}: {old} → {new}'}


def _moved(old: dict[str, Any], new: dict[str, Any], tokenizer: str) -> set[str]:
  """The options that name a run or a tokenizer which was moved since the run took from it.

  Args:
    old: the run's config.
    new: the config now.
    tokenizer: JSON of the run's.
  """
  found = set()
  for module, entry in old.get('init_from', {}).items():
    place = new.get('init_from', {}).get(module, {}).get('run', '')
    if entry['run'] and place and not files.path(entry['run']).exists():
      found.add(f'init_from.{module}.run')
  before, after = (config['data']['text'].get('tokenizer', '') for config in (old, new))
  if tokenizer and before != after and not files.path(before).exists():
    if files.path(after).exists() and tokenization.read(after).to_json() == tokenizer:
      found.add('data.text.tokenizer')
  return found


def _moved_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
  """The option that names files of one's own, where they have the same examples elsewhere.

  Args:
    old: the section `config.data` of the run, whose training examples are those of now.
    new: the section now.
  """
  before, after = (split_names(section.get('name', '')) for section in (old, new))
  kinds = [[(own_files(name) or (name,))[0] for name in names] for names in (before, after)]
  return {'data.name'} if kinds[0] == kinds[1] else set()


def _is_free(key: str) -> bool:
  return any(key == free or key.startswith(f'{free}.') for free in FREE)
