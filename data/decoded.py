"""Streamed examples that are decoded once, into arrays on disk that are memory-mapped."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import files
from data import arrays, column_files
from data.examples import Examples, Indices, blocks
from data.folders import cache_dir
from data.own.progress import Progress, say

_MIB = 2**20
# Examples decoded at a time: as many as have about so many bytes, and no more than that.
_BLOCK, _BLOCK_BYTES = 1024, 32 * _MIB
# Features of text, whose tokens are encoded into mapped arrays anyway.
_OF_TEXT = ('text', 'tokens')


class Decoded(Examples):
  """Examples read from memory-mapped arrays of all their features.

  Args:
    examples: what the arrays were decoded from.
    folder: the folder in the cache that has them.
    mapped: name -> [N, …], every feature.
  """

  def __init__(self, examples: Examples, folder: pathlib.Path, mapped: arrays.Arrays):
    self.spec, self.stamp = examples.spec, examples.stamp
    self._folder = folder
    self._mapped: arrays.Arrays | None = _plain(mapped)

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Copies examples from the arrays: every feature, [B, …]."""
    if self._mapped is None:
      self._mapped = _plain(column_files.open_mapped(self._folder, self.spec.features))
    index = np.asarray(indices, np.int64)
    return {name: array.take(index, axis=0) for name, array in self._mapped.items()}

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes map the files themselves.
    return {**self.__dict__, '_mapped': None}


def decode_once(examples: Examples, budget_mb: int) -> Examples:
  """Returns examples that read from arrays on disk, which are decoded first if they are not there.

  The arrays lie in the cache, under a key of the identity of the examples, which how images are
  read is part of. Where they cannot be written a line on stderr says why.

  Args:
    examples: of images or tables; text comes back as it is.
    budget_mb: the most MiB that the arrays may have; larger examples come back as they are.

  Raises:
    UserError: an example cannot be read.
  """
  spec = examples.spec
  if not spec.features.keys().isdisjoint(_OF_TEXT) or examples.nbytes > budget_mb * _MIB:
    return examples
  key = json.dumps(
    [arrays.VERSION, spec.identity, examples.stamp, spec.n, spec.class_names, spec.features]
  )
  folder = cache_dir() / 'decoded' / hashlib.sha256(key.encode()).hexdigest()[:24]
  title = f'decoding {spec.name} {spec.split}'
  progress = Progress(title, spec.n, 'examples')

  def decoded(rows: Mapping[str, int]) -> Iterator[arrays.Arrays]:
    start = min(rows.values())
    progress.add(start)
    size = max(1, min(_BLOCK, _BLOCK_BYTES * spec.n // examples.nbytes))
    for block in blocks(spec.n - start, size):
      yield examples.read(range(start + block.start, start + block.stop))
      progress.add(len(block))

  try:
    mapped = column_files.open_or_write(folder, spec.features, decoded, title, examples.nbytes)
  except OSError as error:
    no_room = isinstance(error, column_files.NoRoom)
    reason = error if no_room else files.why_not_written(folder, error)
    say(
      f'note: {spec.name} {spec.split} is decoded anew in every epoch, which is slower, because '
      f'its decoded examples cannot be kept: {reason}; ATELIER_CACHE names another place, and '
      'config.data.decoded_mb=0 keeps none'
    )
    return examples
  return Decoded(examples, folder, mapped)


def _plain(mapped: arrays.Arrays) -> arrays.Arrays:
  """The same memory as arrays of NumPy's own type, which are indexed with less work."""
  return {name: array.view(np.ndarray) for name, array in mapped.items()}
