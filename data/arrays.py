"""A whole split as arrays, decoded once and kept as .npy files in the cache."""

import json
import pathlib
import shutil
import tempfile
import time
import warnings
import zlib

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
    {'image': uint8 [N, H, W, C], 'label': int32 [N]}, the label only where there is one. From the
    cache where it is whole, else decoded and cached; a cache that cannot be written is a warning.

  Raises:
    UserError: the images differ in size.
  """
  if hasattr(source, 'gather'):  # chosen from others, which are in the cache
    return source.gather(load_arrays)
  folder = cache_dir() / 'arrays' / f'{source.spec.identity}-{source.stamp}-v{_VERSION}'
  arrays = _read(folder, source.spec)
  if arrays is None:
    arrays = _decode(source)
    try:
      _write(folder, arrays)
    except OSError as error:
      warnings.warn(f'Decoded arrays are not kept: {error}', stacklevel=2)
  return arrays


def size_bytes(spec: Spec) -> int:
  """Returns how large the arrays of `spec` are in memory."""
  return sum(
    spec.n * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    for shape, dtype in spec.features.values()
  )


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


def _read(folder: pathlib.Path, spec: Spec) -> dict[str, np.ndarray] | None:
  """Returns the arrays in `folder` if all of them are there and as they were written."""
  try:
    sums = json.loads((folder / 'sums.json').read_text())
    arrays = {name: np.load(folder / f'{name}.npy') for name in spec.features}
    whole = all(
      array.shape == (spec.n, *spec.features[name][0]) and _sum(array) == sums[name]
      for name, array in arrays.items()
    )
  except (OSError, ValueError, EOFError, KeyError, TypeError):
    return None
  return arrays if whole else None


def _write(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
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
