"""Arrays written to .npy files block by block, for what need not fit in memory.

The files grow in a folder beside their place, which is renamed to it when they are complete. What a
killed process wrote stays there, and the next one goes on after the last block that was noted.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

import files
from data import arrays
from data.own.progress import say
from data.spec import Feature
from errors import UserError

_NOTE = 'done.json'
# Seconds between two notes of what is written, each of which waits for the disk.
_NOTE_EVERY = 2.0
_STALE_S = 7 * 24 * 3600.0

# Given the number of rows of each array that there are, the blocks that come after them.
Blocks = Callable[[Mapping[str, int]], Iterable[arrays.Arrays]]


def open_or_write(
  folder: pathlib.Path,
  columns: Mapping[str, Feature],
  blocks: Blocks,
  title: str,
  nbytes: int = 0,
) -> arrays.Arrays:
  """Returns the memory-mapped arrays of a folder, after writing them if they are not there.

  Of several processes one writes, and the others wait for it.

  Args:
    folder: where the arrays are, a path that differs for other arrays.
    columns: name -> (shape, dtype) of one row of each array.
    blocks: returns arrays [rows, …] by the names of `columns`, whose numbers of rows may differ,
      from the rows on that it is called with. The rows must be the same in every call.
    title: what is written, for messages.
    nbytes: the size of all arrays where it is known, to see beforehand whether it fits on the disk.

  Raises:
    NoRoom: `nbytes` are more than the disk has left.
    OSError: they cannot be written. Nothing of them is left then.
  """
  found = arrays.read(folder, columns, mapped=True)
  if found is not None:
    return found
  folder.parent.mkdir(parents=True, exist_ok=True)
  with _only_writer(folder, title) as part:
    found = arrays.read(folder, columns, mapped=True)
    if found is None:
      try:
        _write(part, columns, blocks, nbytes)
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been read
        part.rename(folder)
      except (OSError, UserError):
        shutil.rmtree(part, ignore_errors=True)  # a full disk needs the room
        raise
      found = open_mapped(folder, columns)
  return found


def open_mapped(folder: pathlib.Path, names: Iterable[str]) -> arrays.Arrays:
  """Returns the memory-mapped arrays of a folder that was checked before."""
  return {name: np.load(folder / f'{name}.npy', mmap_mode='r') for name in names}


def in_memory(columns: Mapping[str, Feature], blocks: Blocks) -> arrays.Arrays:
  """Returns the arrays of `open_or_write` without writing them."""
  parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
  for block in blocks(dict.fromkeys(columns, 0)):
    for name, (_, dtype) in columns.items():
      parts[name].append(np.asarray(block[name], dtype))
  return {name: np.concatenate(each) for name, each in parts.items()}


def _write(part: pathlib.Path, columns: Mapping[str, Feature], blocks: Blocks, nbytes: int) -> None:
  part.mkdir(exist_ok=True)
  rows = _noted(part, columns)
  written = sum(_row_bytes(columns[name]) * count for name, count in rows.items())
  free = shutil.disk_usage(part).free
  needed = int(1.1 * (nbytes - written))  # of which a tenth is left for checkpoints
  if needed > free:
    raise NoRoom(needed, free, part.parent)
  with contextlib.ExitStack() as stack:
    columns_of = {
      name: stack.enter_context(_Column(part / f'{name}.npy', *columns[name], rows[name]))
      for name in columns
    }
    noted = time.monotonic()
    for block in blocks(rows):
      for name, column in columns_of.items():
        column.append(block[name])
      if time.monotonic() - noted > _NOTE_EVERY:
        _note(part, columns_of)
        noted = time.monotonic()
    _note(part, columns_of)
  arrays.write_sums(part, open_mapped(part, columns))
  (part / _NOTE).unlink()


class NoRoom(OSError):
  """There is too little room on a disk for what is to be written there."""

  def __init__(self, needed: int, free: int, place: pathlib.Path):
    super().__init__(
      f'{needed / 2**20:,.0f} MiB are needed in {place}, and its disk has {free / 2**20:,.0f} MiB'
    )


class _Column:
  """A .npy file that grows by rows; what is after the first `rows` is cut off.

  Args:
    path: the file, made if it is not there.
    shape: of one row.
    dtype: of its values.
    rows: rows that the file holds.
  """

  def __init__(self, path: pathlib.Path, shape: tuple[int, ...], dtype: str, rows: int):
    self.rows = rows
    self._shape, self._dtype = shape, np.dtype(dtype)
    self._file: BinaryIO = open(path, 'r+b' if rows else 'w+b')
    self._write_header()
    self._file.truncate(self._file.tell() + rows * _row_bytes((shape, dtype)))
    self._file.seek(0, os.SEEK_END)

  def __enter__(self) -> '_Column':
    return self

  def __exit__(self, *error: object) -> None:
    self._file.close()

  def append(self, values: np.ndarray) -> None:
    """Adds rows [n, …], converted to the column's type."""
    values = np.ascontiguousarray(values, self._dtype)
    assert values.shape[1:] == self._shape
    self._file.write(values.reshape(-1).view(np.uint8).data)
    self.rows += len(values)

  def sync(self) -> None:
    """Returns when all rows, and their number in the header, are on the disk."""
    self._write_header()
    self._file.seek(0, os.SEEK_END)
    self._file.flush()
    os.fsync(self._file.fileno())

  def _write_header(self) -> None:
    # NumPy leaves room in the header for any number of rows, so that its size stays the same.
    self._file.seek(0)
    header = {
      'descr': np.lib.format.dtype_to_descr(self._dtype),
      'fortran_order': False,
      'shape': (self.rows, *self._shape),
    }
    np.lib.format.write_array_header_1_0(self._file, header)


def _note(part: pathlib.Path, columns: Mapping[str, _Column]) -> None:
  for column in columns.values():
    column.sync()
  rows = {name: column.rows for name, column in columns.items()}
  files.write_json(files.path(part / _NOTE), rows)


def _noted(part: pathlib.Path, columns: Mapping[str, Feature]) -> dict[str, int]:
  """Returns how many rows of each column an earlier process has written."""
  try:
    found = files.read_json(files.path(part / _NOTE))
    rows = {name: int(found[name]) for name in columns}
    held = {name: np.load(part / f'{name}.npy', mmap_mode='r') for name, n in rows.items() if n}
    if all(len(array) >= rows[name] for name, array in held.items()):
      return rows
  except (OSError, ValueError, KeyError, TypeError):
    pass
  return dict.fromkeys(columns, 0)


def _row_bytes(feature: Feature) -> int:
  shape, dtype = feature
  return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


@contextlib.contextmanager
def _only_writer(folder: pathlib.Path, title: str) -> Iterator[pathlib.Path]:
  """Gives the folder to write in; a lock that ends with the process keeps others from it."""
  for part in folder.parent.glob('*.partial'):
    with contextlib.suppress(OSError):
      if part.stat().st_mtime < time.time() - _STALE_S:
        shutil.rmtree(part, ignore_errors=True)
  with open(folder.parent / f'.{folder.name}.lock', 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      say(f'{title}: waiting for another process')
      fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # some network folders have no locks
      pass
    yield folder.parent / f'{folder.name}.partial'
