"""python_stdlib: the source of the running Python's standard library; needs no network."""

import fnmatch
import hashlib
import io
import itertools
import keyword
import os
import pathlib
import sys
import sysconfig
import token
import tokenize
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

import errors

KINDS = ('whitespace', 'name', 'keyword', 'number', 'string', 'operator', 'comment')
# The token types of `tokenize`. The rest (new lines, indents) is whitespace. Words that
# are keywords in some places only, such as `match`, are names: only the grammar tells them apart.
_KINDS_OF_TYPES = {
  token.NAME: KINDS.index('name'),
  token.NUMBER: KINDS.index('number'),
  token.STRING: KINDS.index('string'),
  token.OP: KINDS.index('operator'),
  token.COMMENT: KINDS.index('comment'),
}
_KEYWORD = KINDS.index('keyword')
_KEYWORDS = frozenset(keyword.kwlist)
# Installed by the user; tests, which are twice the library and full of data; tables made by a
# program (encodings, and 0.8 MB of help texts in pydoc_data); what differs by machine (config-…).
_LEFT_OUT = (
  'site-packages',
  'dist-packages',
  'test',
  'tests',
  'idle_test',
  'encodings',
  'pydoc_data',
  'config-*',
  '_sysconfigdata*',
)
_PARTS = 20  # of which one is for validation and one for testing


class PythonStdlib(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """One example a file: 90 % train, 5 % validation, 5 % test, by a hash of the path.

  The version is Python's own: another Python has another library, and is another data set.
  """

  VERSION = tfds.core.Version('.'.join(map(str, sys.version_info[:3])))

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'text': tfds.features.Text(),
      'path': tfds.features.Text(),
      'kind_start': tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding='zlib'),
      'kind': tfds.features.Sequence(tfds.features.ClassLabel(names=KINDS)),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=(
        f'The Python sources of the standard library of Python {sys.version}, without tests and '
        'generated tables. `kind` says of what kind each stretch of the text is by the module '
        '`tokenize`, and `kind_start` at which byte of its UTF-8 it starts.'
      ),
      features=tfds.features.FeaturesDict(features),
      homepage='https://docs.python.org/3/library/',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    root = pathlib.Path(sysconfig.get_paths()['stdlib'])
    names = sorted(name.as_posix() for name in sources(root))
    if not names:
      raise errors.UserError(
        f'{root} holds no sources of the standard library; use a Python that is installed with '
        'them, or another data set'
      )
    return {
      split: self._generate_examples(root, [name for name in names if split_of(name) == split])
      for split in ('train', 'validation', 'test')
    }

  def _generate_examples(self, root: pathlib.Path, names: list[str]) -> Iterator:
    for name in names:
      try:
        text = (root / name).read_bytes().decode('utf-8-sig')
        starts, kinds = kinds_of(text)
      except (UnicodeDecodeError, SyntaxError, tokenize.TokenError):
        continue  # a file may be in another encoding, or a template
      yield name, {'text': text, 'path': name, 'kind_start': starts, 'kind': kinds.tolist()}


def sources(root: pathlib.Path) -> Iterator[pathlib.PurePath]:
  """Yields the files of the library at `root` that belong to the data set, relative to it."""
  for folder, folders, files in os.walk(root):
    folders[:] = [name for name in folders if not _left_out(name)]
    inside = pathlib.Path(folder).relative_to(root)
    yield from (inside / file for file in files if file.endswith('.py') and not _left_out(file))


def _left_out(name: str) -> bool:
  return any(fnmatch.fnmatch(name, pattern) for pattern in _LEFT_OUT)


def split_of(path: str) -> str:
  """The split of a file."""
  part = int(hashlib.sha256(path.encode()).hexdigest(), 16) % _PARTS
  return {0: 'validation', 1: 'test'}.get(part, 'train')


def kinds_of(text: str) -> tuple[np.ndarray, np.ndarray]:
  """Cuts Python source into stretches of one kind, which together are all of it.

  Returns:
    (starts int32 [M], kinds int32 [M]): the byte of the text's UTF-8 at which each stretch starts,
    the first at 0, and its place in `KINDS`; no two neighbours are alike.

  Raises:
    SyntaxError, tokenize.TokenError: `tokenize` cannot read it.
  """
  lines = text.split('\n')
  sizes = [len(line.encode()) + 1 for line in lines]
  offsets = [0, *itertools.accumulate(sizes)]
  of_byte = np.zeros(offsets[-1] - 1, np.int32)  # whitespace where there is no token

  def place(row: int, column: int) -> int:
    line = lines[row - 1]
    return offsets[row - 1] + (column if line.isascii() else len(line[:column].encode()))

  for type_, string, start, end in _tokens(text):
    kind = _KINDS_OF_TYPES.get(type_, 0)
    if type_ == token.NAME and string in _KEYWORDS:
      kind = _KEYWORD
    if kind:
      of_byte[place(*start) : place(*end)] = kind
  starts = np.flatnonzero(np.diff(of_byte, prepend=-1))
  return starts.astype(np.int32), of_byte[starts]


def _tokens(text: str) -> Iterator[tuple[int, str, tuple[int, int], tuple[int, int]]]:
  """Yields (type, string, start, end) of each token, the same with every release of Python.

  Python 3.12 and later cut an f-string into its parts, and take any symbol for an operator. Here an
  f-string is one string, and an unknown symbol is an error, as before.
  """
  open_strings: list[tuple[int, int]] = []  # where each f-string starts that has not ended
  for type_, string, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
    name = token.tok_name[type_]
    if name.endswith('STRING_START'):
      open_strings.append(start)
    elif name.endswith('STRING_END'):
      first = open_strings.pop()
      if not open_strings:
        yield token.STRING, string, first, end
    elif not open_strings:
      is_unknown = type_ == token.OP and string not in token.EXACT_TOKEN_TYPES
      if type_ == token.ERRORTOKEN or is_unknown:
        raise tokenize.TokenError(f'what is {string!r}?', start)
      yield type_, string, start, end
