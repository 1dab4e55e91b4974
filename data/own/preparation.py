"""Encodes files of one's own into the cache, once for every content, and finds them there again.

An index in the cache holds, for every path with its options, the state of the files (names, sizes,
times) and the data set that they were encoded to. Files that changed are hashed, and encoded if no
data set has that content. Where the files are gone, the data set in the index is read.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import files
from data.folders import cache_dir
from data.own import arrays, listing, pictures, tables, texts
from data.own.contents import Contents, Entry
from data.own.listing import Listing
from data.own.names import CSV, FOLDER, NPZ, TEXT
from data.own.options import Own
from data.own.progress import Progress, say, some
from data.tfds import catalog, preparation
from data.tfds.dataset_writer import write_failure
from errors import UserError

# Of what is encoded, and how: data sets of before are ignored when the number is raised.
_VERSIONS = {FOLDER: 1, CSV: 2, NPZ: 1, TEXT: 1}
_PER_FILE = 50_000  # examples in a record file
_BLOCK = 256  # examples handed to the writer at a time

_READERS: Mapping[str, Callable[[Listing, str, Own], Contents]] = {
  FOLDER: pictures.read,
  CSV: tables.read,
  NPZ: arrays.read,
  TEXT: texts.read,
}


def open_prepared(name: str, kind: str, path: str, own: Own) -> catalog.Prepared:
  """Returns the data set that a path's files are encoded to, after encoding them if necessary.

  Args:
    name: 'KIND:PATH', as the user wrote it.
    kind: one of `names.KINDS`.
    path: its path, local; '~' is expanded.
    own: how the files are read.

  Raises:
    UserError: the path is not there and was never encoded, the files are not what the kind says, or
      the cache cannot be written.
  """
  if not files.is_local(path):
    raise UserError(f'config.data.name={name} must be a local path; copy it from the bucket first')
  place = os.fspath(files.absolute(path))
  given = [_VERSIONS[kind], kind, own.of(kind)]
  index = files.path(_root() / 'index' / f'{_hash([*given, place])}.json')
  known = _read_index(index)
  prepared = _find(known, name)
  absent = listing.why_absent(place)
  if absent:
    if prepared is None:
      raise UserError(
        f'config.data.name={name}: {place} {absent}, and the cache has no copy that was made of it '
        'with these options; put it back, or correct the path'
      )
    return prepared
  found = listing.list_files(place, os.path.realpath(cache_dir()))
  state = _hash([(file.name, file.size, file.time) for file in found.files])
  if prepared is not None and known.get('state') == state:
    return prepared
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of Pillow, about single files
    contents = _READERS[kind](found, name, own)
    key = _hash([*given, contents.digest, contents.classes, _digests(contents)])
    known = {'name': name, 'path': place, 'state': state, 'data_set': f'{kind}_{key[:24]}'}
    for note in contents.notes:
      say(note)
    left_out = dict(contents.left_out)
    prepared = _find(known, name)
    if prepared is None:
      prepared = _encode(name, known, index.stem, contents, left_out)
  if left_out:
    known['left_out'] = left_out
    shown = [f'{title} {reason}' for title, reason in left_out.items()]
    say(f'left out of {name}, {contents.what}: {len(shown):,} (listed in {index}): {some(shown)}')
  try:
    files.write_json(index, known)
  except OSError as error:
    raise _unwritable(name, error) from error
  return prepared


def _root() -> Any:
  return cache_dir() / 'own'


def _hash(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _read_index(index: files.Path) -> dict[str, Any]:
  try:
    found = files.read_json(index)
    return found if isinstance(found.get('data_set'), str) else {}
  except (OSError, ValueError, AttributeError):
    return {}


def _find(known: Mapping[str, Any], name: str) -> catalog.Prepared | None:
  """The data set of an entry of the index, under the name that the user knows it by."""
  if not known:
    return None
  found = catalog.find(known['data_set'], [files.path(_root())])
  return found and found._replace(info={**found.info, 'name': name, 'version': ''})


def _digests(contents: Contents) -> str:
  """A hash of the examples of every split, whatever their files are called."""
  found = hashlib.sha256()
  for split, entries in sorted(contents.splits.items()):
    found.update(f'{split} {len(entries)} '.encode())
    for entry in _ordered(entries):
      found.update(entry.digest + f'{entry.label}\n'.encode())
  return found.hexdigest()


def _ordered(entries: Sequence[Entry]) -> list[Entry]:
  """The order in which examples are stored: that of their hashes, so that classes are mixed."""
  return sorted(entries, key=lambda entry: (entry.digest, entry.label or ''))


def _encode(
  name: str,
  known: Mapping[str, Any],
  source: str,
  contents: Contents,
  left_out: dict[str, str],
) -> catalog.Prepared:
  """Writes a data set to a hidden folder, which is renamed when it is complete."""
  try:
    with preparation.staging(files.path(_root()), source) as folder:
      if (found := _find(known, name)) is not None:  # another process wrote it meanwhile
        return found
      inside = folder / known['data_set'] / '1.0.0'
      counts = _write(name, known['data_set'], inside, contents, left_out)
      os.rename(inside.parent, _root() / known['data_set'])
  except (OSError, RuntimeError) as error:
    raise _unwritable(name, error) from error
  sizes = ', '.join(f'{split} {n:,}' for split, n in counts.items())
  classes = contents.classes
  of = f' in {len(classes)} classes ({some(classes)})' if classes else ', without classes'
  say(f'encoded {name} in {_root()}: {sizes} {contents.what}{of}')
  prepared = _find(known, name)
  assert prepared is not None
  return prepared


def _write(
  name: str, data_set: str, folder: Any, contents: Contents, left_out: dict[str, str]
) -> dict[str, int]:
  """Writes all splits as record files, and returns their numbers of examples."""
  import tensorflow_datasets as tfds

  features = dict(contents.features())
  if contents.classes:
    features['label'] = tfds.features.ClassLabel(names=list(contents.classes))
  folder.mkdir(parents=True)
  identity = tfds.core.DatasetIdentity(
    name=data_set, version=tfds.core.Version('1.0.0'), data_dir=os.fspath(folder), module_name=''
  )
  info = tfds.core.DatasetInfo(
    builder=identity,
    description=f'Encoded from {name}.',
    features=tfds.features.FeaturesDict(features),
    disable_shuffling=True,
  )
  writer = tfds.core.SequentialWriter(info, _PER_FILE, file_format=catalog.FORMAT)
  writer.initialize_splits([*contents.splits])
  total = sum(map(len, contents.splits.values()))
  progress = Progress(f'encoding {name}', total, contents.what)
  counts = {}
  for split, entries in contents.splits.items():
    counts[split] = 0
    for block in _blocks(_examples(_ordered(entries), contents, left_out, progress)):
      writer.add_examples({split: block})
      counts[split] += len(block)
    if not counts[split]:
      title, reason = next(iter(left_out.items()), ('', 'there are too few'))
      raise UserError(
        f'{name} has no {contents.what} for the split {split} that can be read: {title} {reason}; '
        'add some'
      )
  writer.close_all()
  if contents.input_columns:
    files.write_json(folder / catalog.COLUMNS, [each._asdict() for each in contents.input_columns])
  return counts


def _examples(
  entries: Sequence[Entry], contents: Contents, left_out: dict[str, str], progress: Progress
) -> Iterator[dict[str, Any]]:
  for entry in entries:
    try:
      example = contents.example(entry)
    except ValueError as error:
      left_out[entry.title] = str(error)
    else:
      yield {**example, **({} if entry.label is None else {'label': entry.label})}
    progress.add()


def _blocks(examples: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
  block: list[dict[str, Any]] = []
  for example in examples:
    block.append(example)
    if len(block) == _BLOCK:
      yield block
      block = []
  if block:
    yield block


def _unwritable(name: str, error: OSError | RuntimeError) -> Exception:
  """The error for a cache that cannot be written; any other RuntimeError as it is."""
  reason = write_failure(_root(), error)
  if not reason:
    return error
  return UserError(
    f'{name} cannot be encoded in {_root()}: {reason}; ATELIER_CACHE names another place'
  )
