"""A cache of arrays on disk, in .npy files: decoded splits, encoded texts, reference statistics."""

import json
import pathlib
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

import files
from data.examples import Examples
from data.folders import cache_dir
from data.own.progress import Progress
from data.spec import Spec

VERSION = 3  # of the layout below and of decoding; old files are ignored when it is raised
_STALE_S = 3600.0
_BLOCK = 2**20  # bytes of a mapped file summed at a time

Arrays = dict[str, np.ndarray]


def decode_cached(examples: Examples, decode: Callable[[], Arrays]) -> Arrays:
  """Returns the arrays of a split from the cache, or else decodes them and writes them to it.

  A cache that cannot be written causes a warning.

  Args:
    examples: the split; its identity and stamp are the key in the cache.
    decode: returns the features of its spec, [N, …].
  """
  folder = cache_dir() / 'arrays' / f'{examples.spec.identity}-{examples.stamp}-v{VERSION}'
  arrays = read(folder, examples.spec.features)
  if arrays is None or not _match(arrays, examples.spec):
    arrays = decode()
    write(folder, arrays)
  return arrays


def read(folder: pathlib.Path, names: Iterable[str], mapped: bool = False) -> Arrays | None:
  """Reads the arrays that `write` wrote; returns None if any is missing or damaged.

  Args:
    folder: the folder of the arrays.
    names: the names of the arrays.
    mapped: whether to memory-map the files instead of loading them.
  """
  mode = 'r' if mapped else None
  try:
    sums = files.read_json(files.path(folder / 'sums.json'))
    arrays = {name: np.load(folder / f'{name}.npy', mmap_mode=mode) for name in names}
    whole = all(_sum(array) == sums[name] for name, array in arrays.items())
  except (
    Exception
  ):  # NumPy raises many kinds for a damaged file; whatever is here can be made again
    return None
  return arrays if whole else None


def write(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> bool:
  """Writes arrays and their checksums for `read`; on failure warns and returns False."""
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    # An existing folder is damaged, or it would have been read, and is replaced.
    with files.whole_folder(folder) as part:
      for name, array in arrays.items():
        np.save(part / f'{name}.npy', array)
      write_sums(part, arrays)
  except OSError as error:
    warnings.warn(f'arrays are not cached: {error}', stacklevel=3)
    return False
  return True


def write_sums(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes the checksums of the arrays of a folder, by which `read` tells that they are whole."""
  sums = {name: _sum(array) for name, array in arrays.items()}
  (folder / 'sums.json').write_text(json.dumps(sums))


def _match(arrays: Mapping[str, np.ndarray], spec: Spec) -> bool:
  return all(array.shape == (spec.n, *spec.features[name][0]) for name, array in arrays.items())


def _remove_stale(parent: pathlib.Path) -> None:
  for part in parent.glob('*.part'):  # left by killed processes; a young one may be in use
    if part.stat().st_mtime < time.time() - _STALE_S:
      shutil.rmtree(part, ignore_errors=True)


def _sum(array: np.ndarray) -> int:
  total = zlib.crc32(f'{array.dtype.str} {array.shape}'.encode())
  if not isinstance(array, np.memmap):
    return zlib.crc32(array.reshape(-1).view(np.uint8), total)
  # Through the file, because what is read through the map counts as memory of this process.
  progress = Progress(f'checking {array.filename}', array.nbytes // 10**6, 'MB', once=False)
  with open(array.filename, 'rb') as file:
    file.seek(array.offset)
    while block := file.read(_BLOCK):
      total = zlib.crc32(block, total)
      progress.add(len(block) // 10**6)
  return total
