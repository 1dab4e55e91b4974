"""A run's folder: which config it belongs to, and who may write there."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ml_collections import ConfigDict

import files
from data.own.names import absolute_names, own_files, split_names
from data.own.options import Image, Jsonl, Table
from data.spec import Spec
from data.text import tokenization
from engine import lock
from engine.build import to_plain
from engine.code_version import code_version
from engine.runtime import versions
from errors import UserError

TOKENIZER = 'tokenizer.json'
# Rises when runs of before can no longer be read; the commit is the last one that reads those.
FORMAT, LAST_COMMIT = 2, '83a6fd8'

# Sections that runs of this format may lack, since they were made before there were any.
_YOUNGER: Mapping[str, Any] = {'report': {'trackers': ['tensorboard']}}
_YOUNGER_OF_DATA: Mapping[str, Image | Table | Jsonl] = {
  'image': Image(),
  'table': Table(),
  'jsonl': Jsonl(),
}

# Options that say how long a run goes, what it shows or where it computes, not what it computes.
FREE = (
  'train.steps',
  'train.epochs',
  'train.patience',
  'train.minimum_gain',
  'train.log_every',
  'train.sample_every',
  'train.dispatch',
  'checkpoint',
  'evaluators',
  'report',
  'mesh',
  'sharding',
  'profile',
  'data.data_dir',
  'data.resident_mb',
  'data.workers',
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
  folder, plain = files.path(workdir), _as_json(config)
  description = {
    'format': FORMAT,
    'data': spec.to_json(),
    'versions': versions(),
    'code': code_version(),
    'steps': steps,
  }
  try:
    if spec.tokenizer:
      files.write_text(folder / TOKENIZER, spec.tokenizer)
    files.write_json(folder / 'run.json', description)
    # The last one: a folder with a config is a run, also where the process was killed here.
    files.write_json(folder / 'config.json', plain)
  except OSError as error:
    raise _refused(workdir, error) from error
  return changed


def changes(workdir: str, config: ConfigDict, spec: Spec) -> list[str]:
  """Returns one line per option that differs from those of the run in `workdir` and may.

  Raises:
    UserError: the folder belongs to another config or tokenizer, or to other examples.
  """
  if not (files.path(workdir) / 'config.json').exists():
    return []
  old, new, tokenizer = read_config(workdir), _as_json(config), read_tokenizer(workdir)
  for key in {'name', 'test_name'} & {*old['data']}:
    old['data'][key] = absolute_names(old['data'][key])  # runs of before have what was given
  changed, moved = differences(old, new), _moved(old, new, tokenizer)
  stored = read_description(workdir).get('data', {})
  same = (stored.get('identity'), stored.get('n')) == (spec.identity, spec.n)
  if same:
    moved |= _moved_files(old['data'], new['data'])
  refused = [line for key, line in changed.items() if not _is_free(key) and key not in moved]
  if refused:
    raise UserError(
      f'{workdir} holds a run of another config ({"; ".join(refused)}); choose another '
      '--workdir, or give the options of that run'
    )
  if spec.tokenizer != tokenizer:
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
  read_description(workdir)
  config = {**_YOUNGER, **_read(workdir, 'config.json')}
  if isinstance(config.get('data'), dict):
    younger = {key: dataclasses.asdict(each) for key, each in _YOUNGER_OF_DATA.items()}
    config['data'] = {**json.loads(json.dumps(younger)), **config['data']}
  return config


def read_description(workdir: str) -> dict[str, Any]:
  """Returns `format`, `data` (a data set's description), `versions`, `code` and `steps` of a run.

  Raises:
    UserError: the folder is no run, of another format, or its description is unreadable.
  """
  description = _read(workdir, 'run.json')
  found = description.get('format', 1)
  if found != FORMAT:
    raise UserError(
      f'{workdir} is a run of format {found}, and this version reads format {FORMAT}; commit '
      f'{LAST_COMMIT} is the last that reads format 1; train again in another --workdir'
    )
  return description


def read_tokenizer(workdir: str) -> str:
  """The JSON of a run's tokenizer; '' for a run that has none."""
  path = files.path(workdir) / TOKENIZER
  return path.read_text() if path.exists() else ''


def _read(workdir: str, name: str) -> dict[str, Any]:
  path = files.path(workdir) / name
  if not path.exists():
    raise UserError(
      f'{workdir} is no run: there is no {path}; give the --workdir that train.py wrote to'
    )
  try:
    found = files.read_json(path)
  except ValueError as error:
    raise UserError(f'{path} is damaged ({error}); start again in another --workdir') from error
  if not isinstance(found, dict):
    raise UserError(f'{path} is damaged (it holds no mapping); start again in another --workdir')
  return found


@contextmanager
def only_writer(workdir: str) -> Iterator[None]:
  """Holds the folder's lock, which is dropped when the process ends in whatever way.

  Raises:
    UserError: another process trains there, or the folder cannot be made or written.
  """
  folder = files.path(workdir)
  hold = lock.hold_file if files.is_local(folder) else lock.hold_object
  with ExitStack() as stack:
    try:
      files.make_folder(folder)
      stack.enter_context(hold(folder / '.lock', workdir))
    except OSError as error:
      raise _refused(workdir, error) from error
    yield


def check_place(workdir: str) -> None:
  """Raises UserError where it is foreseen that `workdir` cannot be written; makes nothing."""
  reason = files.why_not_written(workdir)
  if reason:
    raise UserError(f'cannot write to --workdir={workdir}: {reason}')


def check_still_there(workdir: str) -> None:
  """Raises UserError where the folder of a run that is training was moved or removed."""
  if not (files.path(workdir) / 'config.json').exists():
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
