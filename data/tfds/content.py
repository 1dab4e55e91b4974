"""Hashes the stored examples of a split, once for every state of its record files."""

import hashlib
import json
import os
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import files
from data.folders import cache_dir
from data.tfds.catalog import FORMAT, Prepared, damaged

_VERSION = 1  # of the hash; cached ones are ignored when it is raised
_HASH = re.compile(r'([0-9a-f]{64}) ([0-9a-f]{8})')
# Seconds before the first line of progress, and between later ones.
_FIRST_PAUSE, _PAUSE = 2.0, 10.0
_CODES = {'int64_list': 'q', 'float_list': 'f'}


def hash_cached(
  prepared: Prepared,
  split: str,
  total: int,
  records: Callable[[], Iterable[Sequence[bytes | None]]],
  place: Callable[[int], str],
  tolerant: bool = False,
) -> str:
  """Returns the hash of a split's examples from the cache, or else computes it and writes it there.

  The key in the cache is made of the path, size and time of the record files, so that these are
  read again whenever one of them has changed.

  Args:
    prepared: the data set.
    split: a TFDS split of it.
    total: the number of examples that the split selects.
    records: returns the records of the split in its order, in blocks; called only if needed.
    place: says where a record is, given its number in the split.
    tolerant: see `hash_examples`.

  Returns:
    A SHA-256, hexadecimal. It is the same for two preparations of the same examples, whose record
    files differ.

  Raises:
    UserError: the data set is damaged.
  """
  state = [_VERSION, str(files.absolute(prepared.folder)), split, prepared.info['splits']]
  state += ['tolerant'] * tolerant
  key = hashlib.sha256(json.dumps([*state, _files(prepared.folder)]).encode()).hexdigest()[:24]
  path = files.path(cache_dir() / 'content' / key)
  try:
    cached = path.read_text()
  except (OSError, UnicodeDecodeError):
    cached = ''
  stored = _HASH.fullmatch(cached)
  # A flipped bit may leave hexadecimal digits, and would make the data another.
  if stored and stored[2] == _sum(stored[1]):
    return stored[1]
  try:
    found = hash_examples(records(), total, f'{prepared.full_name} {split}', place, tolerant)
  except ValueError as error:
    raise damaged(prepared.folder, str(error)) from error
  try:
    files.write_text(path, f'{found} {_sum(found)}')
  except OSError:
    pass  # It is computed again the next time.
  return found


def _sum(text: str) -> str:
  return f'{zlib.crc32(text.encode()):08x}'


def hash_examples(
  records: Iterable[Sequence[bytes | None]],
  total: int,
  title: str,
  place: Callable[[int], str] = 'record {}'.format,
  tolerant: bool = False,
) -> str:
  """Hashes serialized `tf.train.Example`s in their order; encoded images are not decoded.

  Protocol buffers store the features of an example in any order, so they are parsed and hashed by
  name.

  Args:
    records: the examples, in blocks.
    total: the number of examples, for the progress, which is printed on stderr.
    title: what is hashed, for the progress.
    place: says where a record is, given its number.
    tolerant: whether records may be None, for those that cannot be read, or hold no example; that
      they are there is hashed then.

  Raises:
    ValueError: a record is not an example.
  """
  from google.protobuf.message import DecodeError
  from tensorflow_datasets.proto import tf_example_pb2

  found = hashlib.sha256()
  done, next_line = 0, time.monotonic() + _FIRST_PAUSE
  for block in records:
    for record in block:
      try:
        if record is None:
          raise DecodeError
        found.update(_canonical(tf_example_pb2.Example.FromString(record).features.feature))
      except DecodeError as error:
        if not tolerant:
          raise ValueError(f'{place(done)} is not an example') from error
        found.update(b'unreadable ')
      done += 1
    if time.monotonic() > next_line:
      print(f'hashing {title}, once: {done:,} of {total:,} examples', file=sys.stderr, flush=True)
      next_line = time.monotonic() + _PAUSE
  return found.hexdigest()


def _canonical(features: Any) -> bytes:
  """Serializes the features of an example, sorted by name; other features give other bytes."""
  parts = [struct.pack('<q', len(features))]
  for name in sorted(features):
    kind = features[name].WhichOneof('kind')
    values = getattr(features[name], kind).value if kind else ()
    parts.append(f'{len(name)} {name} {kind} {len(values)} '.encode())
    if kind in _CODES:
      parts.append(struct.pack(f'<{len(values)}{_CODES[kind]}', *values))
    else:
      parts += [struct.pack(f'<{len(values)}q', *map(len, values)), *values]
  return b''.join(parts)


def _files(folder: files.Path) -> list[tuple[str, int, Any]]:
  """Returns (name, size, time or MD5) of every record file."""
  if files.is_local(folder):
    paths = [path for path in files.entries(folder) if f'.{FORMAT}-' in path.name]
    try:
      stats = [(path.name, os.stat(path)) for path in paths]
    except OSError as error:
      raise damaged(folder, str(error)) from error
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
  store, name = files.object_store(folder)
  objects = [entry for entry in store.ls(name, detail=True) if f'.{FORMAT}-' in entry['name']]
  return sorted(
    (entry['name'], entry['size'], entry.get('md5Hash') or str(store.modified(entry['name'])))
    for entry in objects
  )
