"""Examples that a person gives to predict.py, without labels, and how a run reads them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import files
from data.examples import Examples
from data.section import Data
from data.spec import Spec
from data.text_files import decode
from errors import UserError

# The place that stands for standard input.
PIPE = '-'
# So many examples of a mistake are named in one sentence.
_NAMED = 20

# Called with how many are done.
Progress = Callable[[int], None]


class InputRequest(NamedTuple):
  """The inputs that the command line names, and how they are to be read.

  Attributes:
    places: files, folders, and '-' for standard input.
    texts: texts given in words.
    resize: how pictures of another size are resized; '' to refuse them.
    lines: whether each line of a text file is a text; None for standard input alone.
    column: the column of a CSV file, or the key of a JSON Lines file, that holds the text.
    stdin: reads all of standard input, in bytes.
    counting: `(what, how many) ->` a context that shows how many are done.
  """

  places: tuple[str, ...]
  texts: tuple[str, ...]
  resize: str
  lines: bool | None
  column: str
  stdin: Callable[[], bytes]
  counting: Callable[[str, int], AbstractContextManager[Progress]]


class Preparation(NamedTuple):
  """How a run reads its examples.

  Attributes:
    workdir: the run's folder, for messages.
    data: its section `config.data`.
    image: the section `config.data.image`; {} without one.
    text_key: the key of the text in JSON Lines files that the run was trained on.
    spec: of the data it was trained on.
    starts: ids before every text; see `objectives.base.Predictor`.
    marks: roles of special entries that a text holds; likewise.
  """

  workdir: str
  data: Data
  image: Mapping[str, Any]
  text_key: str
  spec: Spec
  starts: tuple[int, ...]
  marks: tuple[str, ...]


class Words(NamedTuple):
  """The words of the tokens of a row; see `objectives.base.Legend`."""

  tokens: Sequence[str] = ()
  ordinary: Sequence[bool] = ()
  marks_before: int = 0


class Inputs(NamedTuple):
  """Inputs, read as the run reads its examples.

  Attributes:
    examples: their spec has the features that the model reads, alone.
    names: of the inputs: a file, a file and a line, or a text itself.
    input_of: the number of the input that an example belongs to; a long text is several examples.
    words: what the tokens of an example stand for; empty of other inputs.
    decode: the characters of a token by its id.
    remarks: what a person should know, a sentence each.
  """

  examples: Examples
  names: Sequence[str]
  input_of: Callable[[int], int]
  words: Callable[[int], Words] = lambda number: Words()
  decode: Callable[[int], str] = str
  remarks: tuple[str, ...] = ()


def read_file(place: str) -> bytes:
  """Reads a file, wherever it is.

  Raises:
    UserError: it is missing, a folder or unreadable.
  """
  path = files.path(place)
  if path.is_dir():
    raise UserError(f'--input={place} is a folder; name a file in it')
  try:
    return path.read_bytes()
  except FileNotFoundError as error:
    raise UserError(f'--input={place}: there is no such file or folder') from error
  except OSError as error:
    raise UserError(f'--input={place} cannot be read ({error.strerror or error})') from error


def decoded(content: bytes, place: str) -> str:
  """Returns text in UTF-8, or in UTF-16 with its mark.

  Raises:
    UserError: it is neither.
  """
  try:
    return decode(content)
  except ValueError as error:
    raise UserError(f'--input={place} {error}; convert it, or name another') from error


def files_in(folder: files.Path) -> Iterator[files.Path]:
  """Yields the files in a folder and those below it, sorted, without hidden ones.

  Raises:
    UserError: a folder cannot be read.
  """
  return _files_below(folder, set())


def _files_below(folder: files.Path, seen: set[str]) -> Iterator[files.Path]:
  """As `files_in`, but without folders that a link leads to once more."""
  seen.add(str(files.absolute(folder)))
  try:
    found = [entry for entry in files.entries(folder) if not entry.name.startswith('.')]
  except OSError as error:
    raise UserError(f'--input={folder} cannot be read ({error.strerror or error})') from error
  for entry in found:
    if not entry.is_dir():
      yield entry
    elif str(files.absolute(entry)) not in seen:
      yield from _files_below(entry, seen)


def some(words: Sequence[str]) -> str:
  """Lists the first of many, and how many more there are."""
  more = len(words) - _NAMED
  return ', '.join([*words[:_NAMED], *([f'and {more:,} more'] if more > 0 else [])])


def refuse_others(
  asked: InputRequest, reading: Preparation, kind: str, takes: Sequence[str]
) -> None:
  """Raises UserError for a flag that has no effect on a run of a kind.

  Args:
    asked: what was asked for.
    reading: of the run.
    kind: what the run reads, e.g. 'pictures'.
    takes: the flags that have an effect.
  """
  flags = {
    '--text': bool(asked.texts),
    '--resize': bool(asked.resize),
    '--lines': asked.lines is not None,
    '--column': bool(asked.column),
  }
  for flag, is_given in flags.items():
    if is_given and flag not in takes:
      raise UserError(
        f'{flag} has no effect here: {reading.workdir} reads {kind}; leave it out, and name them '
        'with --input'
      )
