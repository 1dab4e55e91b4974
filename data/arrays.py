"""Arrays kept in the cache as .npy files: a whole split, decoded once; a text, encoded once."""

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
from data.spec import Spec

_VERSION = 1  # of the layout below; a higher one makes old files unused
_STALE_S = 3600.0

Arrays = dict[str, np.ndarray]


def decoded_once(examples: Examples, decode: Callable[[], Arrays]) -> Arrays:
  """Takes a split's arrays from the cache where they are whole, else decodes and keeps them.

  A cache that cannot be written is a warning.

  Args:
    examples: the split; its identity and stamp say which arrays these are.
    decode: gives the features of its spec, [N, …].
  """
  folder = cache_dir() / 'arrays' / f'{examples.spec.identity}-{examples.stamp}-v{_VERSION}'
  arrays = kept(folder, examples.spec.features)
  if arrays is None or not _fit(arrays, examples.spec):
    arrays = decode()
    keep(folder, arrays)
  return arrays


def kept(folder: pathlib.Path, names: Iterable[str], mapped: bool = False) -> Arrays | None:
  """Reads the arrays that `keep` wrote; None unless all are there and as they were written.

  Args:
    folder: where they are.
    names: of the arrays.
    mapped: whether they stay in their files, to be read when they are used.
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
  """Writes arrays for `kept`; whether it could, with a warning if not."""
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    # A folder that is there already is damaged, or it would have been read.
    with files.whole_folder(folder) as part:
      for name, array in arrays.items():
        np.save(part / f'{name}.npy', array)
      sums = {name: _sum(array) for name, array in arrays.items()}
      (part / 'sums.json').write_text(json.dumps(sums))
  except OSError as error:
    warnings.warn(f'decoded arrays are not kept: {error}', stacklevel=3)
    return False
  return True


def _fit(arrays: Mapping[str, np.ndarray], spec: Spec) -> bool:
  return all(array.shape == (spec.n, *spec.features[name][0]) for name, array in arrays.items())


def _remove_stale(parent: pathlib.Path) -> None:
  for part in parent.glob('*.part'):  # left by killed processes; a young one may be in use
    if part.stat().st_mtime < time.time() - _STALE_S:
      shutil.rmtree(part, ignore_errors=True)


def _sum(array: np.ndarray) -> int:
  return zlib.crc32(array.reshape(-1).view(np.uint8))
