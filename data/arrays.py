"""A whole split as arrays, decoded once and kept as .npy files in the cache."""

import json
import pathlib
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data.folders import cache_dir
from data.source import Examples
from data.spec import Spec

_VERSION = 1  # of the layout below; a higher one makes old files unused
_BLOCK = 1024  # examples decoded at a time: bounds what is held beside the result
_STALE_S = 3600.0


def load_arrays(source: Examples) -> dict[str, np.ndarray]:
  """Returns every example of `source` in its own order.

  Returns:
    {'image': uint8 [N, H, W, C], 'label': int32 [N]}, the label only where there is one; where
    `source` has `rows`, what these are cut out of. From the cache where it is whole, else decoded
    and cached; a cache that cannot be written is a warning.

  Raises:
    UserError: the images differ in size.
  """
  if hasattr(source, 'gather'):  # made of others, which are in the cache
    return source.gather(load_arrays)
  folder = cache_dir() / 'arrays' / f'{source.spec.identity}-{source.stamp}-v{_VERSION}'
  arrays = kept(folder, source.spec.features)
  if arrays is None or not _fit(arrays, source.spec):
    arrays = _decode(source)
    keep(folder, arrays)
  return arrays


def size_bytes(source: Examples) -> int:
  """Returns how large the arrays of `load_arrays` are in memory."""
  if hasattr(source, 'nbytes'):
    return source.nbytes
  spec = source.spec
  return sum(
    spec.n * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    for shape, dtype in spec.features.values()
  )


def gather(arrays: Mapping[str, Any], index: Any) -> dict[str, Any]:
  """Inside jit: returns the examples `index` [B] of arrays [N, …]; see `Examples.rows`."""
  return {name: array.at[index].get(mode='promise_in_bounds') for name, array in arrays.items()}


def kept(
  folder: pathlib.Path, names: Iterable[str], mapped: bool = False
) -> dict[str, np.ndarray] | None:
  """Returns the arrays that `keep` wrote, None unless all are there and as they were written.

  Args:
    folder: where.
    names: of the arrays.
    mapped: whether they stay in their files, to be read when looked at.
  """
  mode = 'r' if mapped else None
  try:
    sums = json.loads((folder / 'sums.json').read_text())
    arrays = {name: np.load(folder / f'{name}.npy', mmap_mode=mode) for name in names}
    whole = all(_sum(array) == sums[name] for name, array in arrays.items())
  except (OSError, ValueError, EOFError, KeyError, TypeError):
    return None
  return arrays if whole else None


def keep(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> bool:
  """Writes arrays for `kept`; returns whether it could, and warns if not."""
  try:
    _write(folder, arrays)
  except OSError as error:
    warnings.warn(f'Decoded arrays are not kept: {error}', stacklevel=3)
    return False
  return True


def _decode(source: Examples) -> dict[str, np.ndarray]:
  spec = source.spec
  arrays = {
    name: np.empty((spec.n, *shape), dtype) for name, (shape, dtype) in spec.features.items()
  }
  for start in range(0, spec.n, _BLOCK):
    block = slice(start, min(start + _BLOCK, spec.n))
    for name, values in source.read(range(block.start, block.stop)).items():
      arrays[name][block] = values
  return arrays


def _fit(arrays: Mapping[str, np.ndarray], spec: Spec) -> bool:
  return all(array.shape == (spec.n, *spec.features[name][0]) for name, array in arrays.items())


def _write(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes the arrays beside `folder` and renames, so that it is there whole or not at all."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  _remove_stale(folder.parent)
  part = pathlib.Path(tempfile.mkdtemp('.part', f'{folder.name}.', folder.parent))
  try:
    for name, array in arrays.items():
      np.save(part / f'{name}.npy', array)
    sums = {name: _sum(array) for name, array in arrays.items()}
    (part / 'sums.json').write_text(json.dumps(sums))
    shutil.rmtree(folder, ignore_errors=True)  # it is damaged, or it would have been read
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _remove_stale(parent: pathlib.Path) -> None:
  for part in parent.glob('*.part'):  # left by killed processes; a young one may be in use
    if part.stat().st_mtime < time.time() - _STALE_S:
      shutil.rmtree(part, ignore_errors=True)


def _sum(array: np.ndarray) -> int:
  return zlib.crc32(array.reshape(-1).view(np.uint8))
