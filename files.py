"""Files in local folders and in buckets (gs://…): one set of calls, and no half-written file.

`path` turns what a user wrote into a path of `etils.epath`, whose methods (`exists`, `read_text`,
`/`, …) do the same in both places. The functions here add what it lacks. A local file is written
beside its place and renamed; an object of a bucket needs no second one, because it appears when its
upload is complete.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from etils import epath

from errors import UserError

Path = epath.Path

_BUCKET = 'gs://'
# Seconds between two uploads of the same object: a bucket refuses more than one a second, and each
# upload carries the whole object.
_UPLOAD_EVERY = 10.0


def path(place: str | os.PathLike) -> Path:
  """The path that a user wrote, with `~` expanded; local, or in a bucket.

  Raises:
    UserError: another address than gs://BUCKET/…, or the package for buckets is missing.
  """
  text = os.fspath(place)
  if text.startswith(_BUCKET):
    _check_package(text)
    return Path(text)
  # pathlib.Path makes 'gs:/bucket' of 'gs://bucket': a folder of that name is never meant.
  if '://' in text or text.startswith('gs:'):
    raise UserError(f'{text} is no folder that can be opened; give a local one or gs://BUCKET/…')
  return Path(text).expanduser()


def is_local(path: str | os.PathLike) -> bool:
  """Whether a path is on this machine, not in a bucket."""
  return not os.fspath(path).startswith(_BUCKET)


def object_store(path: Path) -> tuple[Any, str]:
  """The `fsspec` file system that a bucket's path is in, and the path's name there.

  For what `epath` has no call for: creation that fails if the object exists, sizes and checksums.
  """
  import fsspec

  return fsspec.core.url_to_fs(os.fspath(path))


def stamp(path: Path) -> str:
  """A word that changes when the file is written again; OSError where there is no such file."""
  if is_local(path):
    return f'{os.stat(path).st_mtime_ns:x}'
  store, name = object_store(path)
  return f'{int(store.modified(name).timestamp() * 1e9):x}'


def entries(folder: Path) -> list[Path]:
  """The paths in a folder, sorted by name; none where there is no such folder."""
  return sorted(folder.iterdir()) if folder.is_dir() else []


def make_folder(folder: Path) -> None:
  """Makes a folder and those above it; buckets have none, only names with slashes."""
  if is_local(folder):
    os.makedirs(folder, exist_ok=True)


def write(path: Path, save: Callable[[BinaryIO], None]) -> None:
  """Writes the file that `save` fills, so that a reader sees the old one or the whole new one.

  Args:
    path: where; its folder is made if it is missing.
    save: called once, with a file opened for writing bytes.
  """
  if not is_local(path):
    buffer = io.BytesIO()  # what saves may want to seek, and an upload cannot
    save(buffer)
    path.write_bytes(buffer.getvalue())
    return
  make_folder(path.parent)
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  try:
    with open(part, 'wb') as file:
      save(file)
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
  """Writes bytes; see `write`."""
  write(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
  """Writes text in UTF-8; see `write`."""
  write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
  """Writes what JSON can hold, for people to read too; see `write`."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def read_json(path: Path) -> Any:
  """What a JSON file holds; ValueError where it is damaged, OSError where it is missing."""
  return json.loads(path.read_text())


class Lines:
  """A text file that grows line by line, as a log does; each line is there at once."""

  def __init__(self, path: Path):
    make_folder(path.parent)
    self._file = open(path, 'a', encoding='utf-8')

  def add(self, line: str) -> None:
    """Appends `line` and a line end."""
    self._file.write(f'{line}\n')
    self._file.flush()

  def flush(self) -> None:
    """Returns when every line is in the file."""

  def close(self) -> None:
    """Lets go of the file."""
    self._file.close()


class _ObjectLines(Lines):
  """Lines of an object, which cannot grow: it is uploaded whole, every ten seconds at most."""

  def __init__(self, path: Path):
    self._path = path
    self._text = self._uploaded = path.read_text() if path.exists() else ''
    self._when = time.monotonic()

  def add(self, line: str) -> None:
    self._text += f'{line}\n'
    if time.monotonic() - self._when >= _UPLOAD_EVERY:
      self.flush()

  def flush(self) -> None:
    if self._text != self._uploaded:
      write_text(self._path, self._text)
      self._uploaded, self._when = self._text, time.monotonic()

  def close(self) -> None:
    self.flush()


def append_lines(path: Path) -> Lines:
  """Opens a text file to append lines to what it holds."""
  return Lines(path) if is_local(path) else _ObjectLines(path)


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
    fsspec.get_filesystem_class('gs')
  except ImportError as error:
    raise UserError(
      f'{text} is in a bucket, and the package that opens buckets is missing: pip install gcsfs'
    ) from error
