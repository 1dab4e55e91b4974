"""The files of a folder, and the split and class that its subfolders give them."""

import errno
import os
import stat
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from data.own.progress import some
from errors import UserError

# Folders that are splits, and the names of these.
SPLITS = {
  'train': 'train',
  'training': 'train',
  'test': 'test',
  'testing': 'test',
  'val': 'val',
  'valid': 'valid',
  'validation': 'validation',
  'dev': 'dev',
}
# What operating systems leave in folders, beside names that begin with a dot.
_LITTER = ('__macosx', 'thumbs.db', 'desktop.ini')


class File(NamedTuple):
  """A file below a folder.

  Attributes:
    name: its path from the folder, with '/'.
    path: its whole path.
    size: in bytes; -1 where it cannot be opened, such as a link that leads nowhere.
    time: when it was changed, in nanoseconds.
  """

  name: str
  path: str
  size: int
  time: int


class Listing(NamedTuple):
  """The files and folders below a folder, or one file.

  Attributes:
    root: the folder or file.
    files: sorted by name.
    folders: their paths from `root`.
  """

  root: str
  files: tuple[File, ...]
  folders: tuple[str, ...]

  @property
  def is_file(self) -> bool:
    return not os.path.isdir(self.root)


class Placed(NamedTuple):
  """A file with its split and its class; None where the folders give it none."""

  file: File
  split: str | None
  label: str | None


def list_files(root: str, besides: str = '') -> Listing:
  """Lists all files below a folder, links followed, hidden files and litter left out.

  Args:
    root: the folder, or one file.
    besides: a folder that is left out wherever it lies: our own cache.

  Raises:
    UserError: a folder cannot be read.
  """
  if not os.path.isdir(root):
    return Listing(root, (_file(root, os.path.basename(root)),), ())
  files: list[File] = []
  folders: list[str] = []
  for entry in _walk(root, '', (), besides):
    (files if isinstance(entry, File) else folders).append(entry)  # type: ignore[arg-type]
  return Listing(root, tuple(sorted(files)), tuple(sorted(folders)))


def _walk(
  folder: str, prefix: str, above: tuple[tuple[int, int], ...], besides: str
) -> Iterator[File | str]:
  """Yields the files below a folder, and the names of the folders."""
  found = os.stat(folder)
  here = (found.st_dev, found.st_ino)
  if here in above:  # a link to a folder that it lies in
    return
  try:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
  except OSError as error:
    raise UserError(f'{folder} cannot be read ({error.strerror}); make it readable') from error
  for entry in entries:
    if entry.name.startswith('.') or entry.name.lower() in _LITTER:
      continue
    name = f'{prefix}{entry.name}'
    if entry.is_dir():
      if os.path.realpath(entry.path) == besides:
        continue
      yield name
      yield from _walk(entry.path, f'{name}/', (*above, here), besides)
    else:
      file = _file(entry.path, name)
      if file.size != _NO_FILE:
        yield file


_NO_FILE = -2  # a pipe or a device, which must not be opened


def _file(path: str, name: str) -> File:
  try:
    found = os.stat(path)
  except OSError:
    return File(name, path, -1, 0)
  return File(
    name, path, found.st_size if stat.S_ISREG(found.st_mode) else _NO_FILE, found.st_mtime_ns
  )


def read(file: File) -> bytes:
  """Reads a file; ValueError, which says why, where that fails."""
  try:
    with open(file.path, 'rb') as opened:
      return opened.read()
  except OSError as error:
    raise ValueError(f'cannot be opened ({error.strerror})') from error


def place(files: Sequence[File], title: str, what: str) -> list[Placed]:
  """Gives each file the split and the class that its folders name.

  Folders such as train/ and test/ are splits where there are no others beside them; the next level
  is the class. Deeper ones mean nothing.

  Args:
    files: those that are read.
    title: the data set, for messages.
    what: what the files are, e.g. 'pictures'.

  Raises:
    UserError: folders of splits lie beside others, files lie beside folders, or a class has files
      for testing only.
  """
  splits = _splits(files, title, what)
  placed = []
  for file in files:
    parts = file.name.split('/')
    split = SPLITS[parts[0].lower()] if splits else None
    inside = parts[1:] if splits else parts
    placed.append(Placed(file, split, class_name(inside[0], title) if len(inside) > 1 else None))
  loose = [each.file.name for each in placed if each.label is None]
  if loose and len(loose) < len(placed):
    raise UserError(
      f'{title} has {what} that lie in no class folder ({len(loose):,}: {some(loose)}) '
      'beside others that do; move them into one, or all into one folder'
    )
  check_classes({each: None for each in ((p.split, p.label) for p in placed)}, title, what)
  return placed


def _splits(files: Sequence[File], title: str, what: str) -> bool:
  """Whether the folders at the top are splits."""
  tops = {file.name.split('/')[0] for file in files if '/' in file.name}
  named = sorted(top for top in tops if top.lower() in SPLITS)
  kinds = {SPLITS[top.lower()] for top in named}
  others = sorted(tops - {*named})
  loose = [file.name for file in files if '/' not in file.name]
  if not named or (kinds.isdisjoint({'test'}) and len(kinds) == 1 and others):
    return False  # a class may be called "train"
  if others or loose:
    raise UserError(
      f'{title} has the folders {", ".join(f"{each}/" for each in named)} of splits beside other '
      f'{what} ({some([*others, *loose])}); move these into one of them, or elsewhere'
    )
  return True


def check_classes(pairs: Collection[tuple[str | None, str | None]], title: str, what: str) -> None:
  """Raises UserError where a class has examples in other splits, and none in the training split.

  Args:
    pairs: the (split, class) of every example, each at least once.
    title: the data set.
    what: what the examples are.
  """
  known = {label for split, label in pairs if split == 'train'}
  if not known:
    return
  for split, label in sorted(pairs, key=str):
    if label not in known:
      raise UserError(
        f'{title}: the class "{label}" has {what} in {split} and none in train; add some there, or '
        'remove the class'
      )


def class_name(name: str, title: str) -> str:
  """Returns a class's name in Unicode's composed form, which file systems do not agree on.

  Raises:
    UserError: it holds line ends, or is no text.
  """
  found = unicodedata.normalize('NFC', name)
  if len(found.splitlines()) != 1 or any('\ud800' <= char <= '\udfff' for char in found):
    raise UserError(f'{title}: the class {name!r} holds line ends or is not UTF-8; rename it')
  return found


def sorted_classes(names: Collection[str]) -> tuple[str, ...]:
  """Sorts the names of classes: numbers by their size, others as text."""
  if all(name.isdecimal() and name.isascii() for name in names):
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  return tuple(sorted(names))


def why_absent(root: str) -> str:
  """Why there is nothing at a path, for messages."""
  try:
    os.stat(root)
  except OSError as error:
    return 'is not there' if error.errno == errno.ENOENT else f'cannot be read ({error.strerror})'
  return ''
