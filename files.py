"""Files in local folders and in buckets (gs://…): one set of calls, and no half-written file.

`path` turns what a user wrote into a path of `etils.epath`, whose methods (`exists`, `read_text`,
`/`, …) do the same in both places. The functions here add what it lacks. A local file is written
beside its place and renamed; an object of a bucket needs no second one, because it appears when its
upload is complete.
"""

import contextlib
import errno
import io
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from etils import epath
from etils.epath import backend

from errors import UserError

Path: TypeAlias = epath.Path

_BUCKET = 'gs://'
# Seconds between two uploads of the same object: a bucket refuses more than one a second, and each
# upload carries the whole object.
_UPLOAD_EVERY = 10.0


def path(place: str | os.PathLike) -> Path:
  """The path that a user wrote, with `~` expanded; local, or in a bucket.

  Raises:
    UserError: another address than gs://BUCKET/…, the package for buckets is missing, or there is
      no home folder of that name.
  """
  text = os.fspath(place)
  if text.startswith(_BUCKET):
    _check_package(text)
    return Path(text)
  # pathlib.Path makes 'gs:/bucket' of 'gs://bucket': a folder of that name is never meant.
  if '://' in text or text.startswith('gs:'):
    raise UserError(f'{text} is no folder that can be opened; give a local one or gs://BUCKET/…')
  expanded = os.path.expanduser(text)
  if expanded.startswith('~'):
    raise UserError(f'{text} names no home folder that is known; write the whole path')
  return Path(expanded)


def named_path(place: str, option: str) -> Path:
  """Returns `path` of what an option holds; errors begin with the option, as a user writes it."""
  try:
    return path(place)
  except UserError as error:
    raise UserError(f'{option}={error}') from error


def is_local(place: str | os.PathLike) -> bool:
  """Whether a path is on this machine, not in a bucket."""
  return not os.fspath(place).startswith(_BUCKET)


def absolute(place: str | os.PathLike) -> Path:
  """The path from the root of the file system; that of a bucket as it is."""
  return Path(os.path.realpath(path(place))) if is_local(place) else path(place)


def object_store(place: Path) -> tuple[Any, str]:
  """The `fsspec` file system of a bucket's path, and the path as text.

  For what `epath` has no call for: creation that fails if the object exists, sizes and checksums.
  It is the one that `epath` has: another would keep other listings, which go out of date.
  """
  return backend.fsspec_backend.fs(place), os.fspath(place)


def stamp(place: Path) -> str:
  """A word that changes when the file is written again; OSError where there is no such file."""
  if is_local(place):
    return f'{os.stat(place).st_mtime_ns:x}'
  store, name = object_store(place)
  return f'{int(store.modified(name).timestamp() * 1e9):x}'


def entries(folder: Path) -> list[Path]:
  """The paths in a folder, sorted by name; none where there is no such folder."""
  return sorted(folder.iterdir()) if folder.is_dir() else []


def make_folder(folder: str | os.PathLike) -> None:
  """Makes a folder and those above it; buckets have none, only names with slashes."""
  if is_local(folder):
    os.makedirs(path(folder), exist_ok=True)


def why_not_written(place: str | os.PathLike, error: OSError | None = None) -> str:
  """Returns why a place cannot be written, and the way out, as the end of a sentence.

  Args:
    place: a folder or file, which need not exist.
    error: what the system raised; None to look at the place.

  Returns:
    '' where `error` is None and nothing speaks against writing there.
  """
  if not is_local(place):
    return '' if error is None else f'{error}; choose another place'
  above = _first_existing(absolute(place))
  number = _obstacle(above) if error is None else error.errno
  if not above.is_dir():
    return f'{above} is no folder; choose another place'
  if number in _REASONS:
    reason, way_out = _REASONS[number]
    return f'{reason.format(above)}; {way_out}'
  if error is None:
    return ''
  where = '' if error.filename is None else f' ({error.filename})'
  return f'{error.strerror or error}{where}; choose another place'


_ELSEWHERE = 'choose another place'
# What is wrong with a folder, and the way out.
_REASONS = {
  errno.ENOSPC: ('the disk of {} is full', 'free some space'),
  errno.EDQUOT: ('the quota for {} is used up', 'free some space'),
  errno.EIO: ('the disk of {} fails', 'see to it, or choose another place'),
  errno.EROFS: ('the disk of {} can only be read', _ELSEWHERE),
  errno.EACCES: ('this user may not write in {}', _ELSEWHERE),
  errno.EPERM: ('this user may not write in {}', _ELSEWHERE),
  errno.EFBIG: ('the system limits the size of files in {}', 'raise the limit (ulimit -f)'),
  errno.ENOENT: ('a folder below {} is missing and cannot be made', _ELSEWHERE),
}


def _first_existing(place: Path) -> Path:
  """A place, or the nearest one above it that exists."""
  return next(each for each in (place, *place.parents) if os.path.lexists(each))


def _obstacle(folder: Path) -> int:
  """The number of the error that writing in a folder would raise; 0 for none that is foreseen."""
  if not folder.is_dir():
    return errno.ENOTDIR
  disk = os.statvfs(folder)
  if disk.f_flag & os.ST_RDONLY:
    return errno.EROFS
  if not os.access(folder, os.W_OK | os.X_OK):
    return errno.EACCES
  # Some file systems count no blocks at all.
  return errno.ENOSPC if disk.f_blocks and not disk.f_bavail else 0


def write(place: str | os.PathLike, save: Callable[[BinaryIO], Any]) -> None:
  """Writes the file that `save` fills, so that a reader sees the old one or the whole new one.

  Args:
    place: where; its folder is made if it is missing.
    save: called once, with a file opened for writing bytes.
  """
  target = path(place)
  if not is_local(target):
    buffer = io.BytesIO()  # some savers seek, which an upload cannot
    save(buffer)
    target.write_bytes(buffer.getvalue())
    return
  make_folder(target.parent)
  part = target.with_name(f'{target.name}.{os.getpid()}.part')
  try:
    with open(part, 'wb') as file:
      save(file)
    os.replace(part, target)
  finally:
    part.unlink(missing_ok=True)


def try_to_write(place: Path) -> None:
  """Raises OSError where a local file could not be written; nothing is left behind."""
  if is_local(place):
    part = place.with_name(f'{place.name}.{os.getpid()}.part')
    with open(part, 'wb'):
      pass
    part.unlink()


def prepare_out(out: str, flag: str = '--out') -> None:
  """Makes the folder that the file which a flag names is to be written in.

  Raises:
    UserError: it cannot be written there.
  """
  place = named_path(out, flag)
  if place.is_dir():
    raise UserError(f'{flag}={out} is a folder; give the name of a file')
  try:
    make_folder(place.parent)
    try_to_write(place)
  except OSError as error:
    reason = why_not_written(place.parent, error)
    raise UserError(f'cannot write {flag}={out}: {reason}') from error
  # An empty file can be made on a full disk, too.
  reason = why_not_written(place.parent)
  if reason:
    raise UserError(f'cannot write {flag}={out}: {reason}')


def write_bytes(place: str | os.PathLike, content: bytes) -> None:
  """Writes bytes; see `write`."""
  write(place, lambda file: file.write(content))


def write_text(place: str | os.PathLike, text: str) -> None:
  """Writes text in UTF-8; see `write`."""
  write_bytes(place, text.encode())


def write_json(place: str | os.PathLike, value: Any) -> None:
  """Writes what JSON can hold, for people to read too; see `write`."""
  write_text(place, json.dumps(value, indent=2) + '\n')


def write_npz(place: str | os.PathLike, **arrays: Any) -> None:
  """Writes arrays by name, compressed, as NumPy reads them; see `write`."""
  write(place, lambda file: np.savez_compressed(file, **arrays))


def move_folder(folder: Path, target: Path) -> None:
  """Moves a folder with all that is in it; what was at `target` goes.

  Object by object in a bucket, so a move that is interrupted leaves some at either place.
  """
  if is_local(folder):
    shutil.rmtree(target, ignore_errors=True)
    make_folder(target.parent)
    os.rename(folder, target)
    return
  target.rmtree(missing_ok=True)
  store, name = object_store(folder)
  store.mv(name, object_store(target)[1], recursive=True)


def move_file(source: Path, target: Path) -> None:
  """Moves whatever is at a path, within a folder or a bucket."""
  if is_local(source):
    os.rename(source, target)
  else:
    store, name = object_store(source)
    store.mv(name, object_store(target)[1])


def read_json(place: Path) -> Any:
  """Reads a JSON file; ValueError where it is damaged, OSError where it is missing."""
  return parse_json(place.read_text())


def parse_json(text: str | bytes) -> Any:
  """Returns what a JSON text holds; ValueError where it holds no JSON."""
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError('it is nested too deeply') from None


class Growing:
  """A local file that grows; what the disk refuses is kept until it takes it.

  Args:
    file: opened for writing bytes, without a buffer.
  """

  def __init__(self, file: io.RawIOBase):
    self._file, self._waiting = file, bytearray()

  def write(self, content: bytes) -> None:
    """Adds bytes; they are in the file after `flush`."""
    self._waiting += content

  def flush(self) -> None:
    """Writes what is missing; OSError where the disk refuses some of it."""
    while self._waiting:
      written = self._file.write(self._waiting)
      del self._waiting[:written]

  def close(self) -> None:
    """Writes what is missing, and lets go of the file."""
    try:
      self.flush()
    finally:
      self._file.close()


class Lines:
  """A text file that grows line by line, as a log does; each line is there at once.

  Lines that the disk refuses are kept and written with the next one.
  """

  def __init__(self, place: Path):
    make_folder(place.parent)
    self._file = Growing(open(place, 'ab', buffering=0))

  def add(self, line: str) -> None:
    """Appends `line` and a line end; OSError where the disk refuses that for now."""
    self._file.write(f'{line}\n'.encode())
    self.flush()

  def flush(self) -> None:
    """Returns when every line is in the file; OSError where the disk refuses that for now."""
    self._file.flush()

  def close(self) -> None:
    """Lets go of the file."""
    self._file.close()


class _ObjectLines(Lines):
  """Lines of an object, which cannot grow: it is uploaded whole, every ten seconds at most."""

  def __init__(self, place: Path):
    self._place = place
    self._text = self._uploaded = place.read_text() if place.exists() else ''
    self._when = time.monotonic()

  def add(self, line: str) -> None:
    self._text += f'{line}\n'
    if time.monotonic() - self._when >= _UPLOAD_EVERY:
      self.flush()

  def flush(self) -> None:
    if self._text != self._uploaded:
      write_text(self._place, self._text)
      self._uploaded, self._when = self._text, time.monotonic()

  def close(self) -> None:
    self.flush()


def append_lines(place: str | os.PathLike) -> Lines:
  """Opens a text file to append lines to what it holds."""
  return Lines(path(place)) if is_local(place) else _ObjectLines(path(place))


@contextlib.contextmanager
def whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder beside the local `folder`, which takes its place at the end.

  Nothing is left beside it where the body raises, and `folder` is as it was.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp('.part', f'{folder.name}.', folder.parent))
  try:
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _check_package(text: str) -> None:
  import fsspec

  try:
    fsspec.get_filesystem_class('gcs')
  except ImportError as error:
    raise UserError(
      f'{text} is in a bucket, and the package that opens buckets is missing: pip install gcsfs'
    ) from error
