"""Names of data sets: TFDS's, and KIND:PATH for files of one's own, several joined by '+'."""

import os
import re

import files
from errors import UserError

FOLDER, CSV, NPZ, TEXT = 'folder', 'csv', 'npz', 'text'
# What is read, by the word before the colon.
KINDS = {
  FOLDER: 'a folder of pictures',
  CSV: 'a table',
  NPZ: 'arrays that NumPy wrote',
  TEXT: 'texts (.txt or .jsonl)',
}
_KIND = '|'.join(KINDS)


def split_names(name: str) -> list[str]:
  """Splits the names of joined data sets.

  A path may hold '+', so after KIND: a '+' joins only if another KIND: follows it; a name of TFDS
  is joined before it: 'mnist5k+folder:a+b' is `mnist5k` and the folder `a+b`.
  """
  parts = re.split(rf'\+(?=(?:{_KIND}):)', name)
  return [each for part in parts for each in ([part] if own_files(part) else part.split('+'))]


def own_files(name: str) -> tuple[str, str] | None:
  """Returns (kind, path) of 'KIND:PATH', and None for the name of a data set of TFDS.

  Raises:
    UserError: there is no path.
  """
  kind, colon, path = name.partition(':')
  if kind not in KINDS or not colon:
    return None
  if not path.strip():
    raise UserError(f'config.data.name={name} names no path; write {kind}:PATH')
  return kind, path


def absolute_names(name: str) -> str:
  """Returns the same names, with the paths of files of one's own from the root of the file system.

  Raises:
    UserError: there is no path.
  """
  return '+'.join(_absolute(each) for each in split_names(name))


def _absolute(name: str) -> str:
  kind, path = own_files(name) or ('', '')
  # Links are kept: they may lead elsewhere tomorrow.
  return f'{kind}:{os.path.abspath(files.path(path))}' if kind and files.is_local(path) else name
