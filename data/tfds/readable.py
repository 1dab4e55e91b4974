"""The stored examples that can be read, where config.data.corrupt says to leave the others out."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

import errors
import files
from data import arrays
from data.examples import Examples, Indices, blocks
from data.folders import cache_dir
from data.own.progress import Progress, say, some
from data.tfds.source import Source, Unreadable

_BLOCK = 256  # examples read at a time


def readable(source: Source) -> Examples:
  """Returns the examples of a split that can be read, in their order; `source` if all can.

  All are read the first time; which of them cannot be read is kept in the cache, and is said on
  stderr. So the examples, their order and a run's position in it depend on the data alone.

  Args:
    source: a split that was opened with `tolerant`.

  Raises:
    UserError: none can be read.
  """
  unreadable = _find_cached(source)
  if len(unreadable) == len(source):
    raise errors.UserError(
      f'{source.spec.name} {source.spec.split} has no example that can be read: '
      f'{next(iter(unreadable.values()))}; prepare the data set again'
    )
  return _Readable(source, unreadable) if unreadable else source


class _Readable(Examples):
  """The examples of `source` but for some, which are the keys of `unreadable`."""

  def __init__(self, source: Source, unreadable: Mapping[int, str]):
    left_out = sorted(unreadable)
    self._source = source
    self._index = np.setdiff1d(np.arange(len(source)), left_out)
    self.stamp = source.stamp
    spec = source.spec
    key = f'{spec.identity} without {left_out}'
    self.spec = spec._replace(
      n=len(self._index),
      identity=hashlib.sha256(key.encode()).hexdigest()[:16],
      left_out=len(left_out),
    )

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return self._source.read(self._index[np.asarray(indices, np.int64)])

  def column(self, name: str) -> np.ndarray:
    parts = (self._source.features(self._index[block], (name,)) for block in self._blocks())
    return np.concatenate([part[name] for part in parts])

  def load(self) -> dict[str, np.ndarray]:
    return arrays.decode_cached(self, super().load)

  def _blocks(self) -> list[slice]:
    return [slice(block.start, block.stop) for block in blocks(len(self), _BLOCK)]


def _find_cached(source: Source) -> dict[int, str]:
  """Returns why examples cannot be read, by their numbers, from the cache or by reading all."""
  spec = source.spec
  key = json.dumps([spec.identity, source.stamp, spec.n, spec.features, arrays.VERSION])
  path = files.path(cache_dir() / 'unreadable' / f'{hashlib.sha256(key.encode()).hexdigest()[:24]}')
  try:
    return {int(index): f'{reason}' for index, reason in files.read_json(path).items()}
  except (OSError, ValueError, AttributeError):
    pass
  found = _find(source)
  listed = ''
  try:
    files.write_json(path, found)
    listed = f' (listed in {path})'
  except OSError:
    pass  # They are looked for again the next time.
  if found:
    say(
      f'left out of {spec.name} {spec.split}: {len(found):,} of {spec.n:,} examples, which cannot '
      f'be read{listed}: {some([*found.values()], 3)}'
    )
  return found


def _find(source: Source) -> dict[int, str]:
  found = {}
  title = f'{source.spec.name} {source.spec.split}'
  progress = Progress(f'looking for examples of {title} that cannot be read', len(source), 'read')
  for block in blocks(len(source), _BLOCK):
    try:
      source.features(block, tuple(source.spec.features))
    except Unreadable:
      for index in block:
        try:
          source.features([index], tuple(source.spec.features))
        except Unreadable as error:
          found[index] = error.reason
    progress.add(len(block))
  return found
