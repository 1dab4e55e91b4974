"""Tables: csv:PATH, a file or a folder with train.csv and test.csv."""

import array
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.own import listing
from data.own.contents import TRAIN, Contents, Entry, deal
from data.own.listing import SPLITS, File, Listing
from data.own.options import MEAN, MEDIAN, REFUSE, Own
from data.own.progress import Progress, some
from data.spec import InputColumn
from data.table_files import is_missing, number, read_rows
from errors import UserError, nearest

_SUFFIXES = ('.csv', '.tsv')
_MOST_WORDS = 100  # of a category
_MOST_CLASSES = 100  # more distinct whole numbers are a regression's targets only
_DATE = re.compile(r'(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([ T].*)?')
# '1,200', '$5', '30 %': numbers to a reader, but not to us.
_DECORATED = re.compile(r'[$€£]?\s*[-+]?\d[\d.,\s]*\s*[%$€£]?')


class _Word(NamedTuple):
  """The code of a word, and the first line that has it."""

  code: int
  place: str


class _Column(NamedTuple):
  """A column as it was written.

  Attributes:
    name: in the header.
    numbers: float64 [N], nan where there is none.
    codes: int32 [N], the index of the word; -1 for a number, -2 for a missing value.
    words: all words that are no numbers, in the order of their codes.
  """

  name: str
  numbers: np.ndarray
  codes: np.ndarray
  words: Mapping[str, _Word]

  @property
  def missing(self) -> np.ndarray:
    return self.codes == -2


def read(found: Listing, title: str, own: Own) -> Contents:
  """Reads a table with a header: the target, and the other columns as inputs.

  Args:
    found: the file, or the files of a folder.
    title: the data set's name.
    own: with the target, what is done about missing values, and columns to keep for groups.

  Raises:
    UserError: the file is no table with a header, the target is not one of its columns, or values
      are missing or cannot be inputs; names the column and the line.
  """
  columns = own.columns
  sources = _sources(found, title)
  header, table, splits_of, lines, digests = _parse(sources, title, own)
  names = [each.name for each in table]
  _check_names(names, title, own, columns)
  by_name = {each.name: each for each in table}
  target = by_name[own.table.target]
  _check_target(target, title, lines)
  inputs = [each for each in table if each.name not in (own.table.target, *own.table.ignore)]
  if not inputs:
    raise UserError(f'{title} has no column beside the target that is an input; add some')
  kept = _kept_rows(target, inputs, title, own, lines)
  numbers, classes, labels = _target_values(target, kept, title)
  entries = [
    Entry(digests[row], labels[row] if classes else None, row, lines[row])
    for row in np.flatnonzero(kept)
  ]
  dealt = {split: [e for e in entries if splits_of[e.source] == split] for split in {*splits_of}}
  if {*dealt} <= {None, TRAIN}:
    splits = deal(entries)
  else:
    splits = dealt
    pairs = {(split, entry.label) for split, each in splits.items() for entry in each}
    if classes:
      listing.check_classes(pairs, title, 'rows')
  training = np.zeros(len(kept), bool)
  training[[entry.source for entry in splits.get(TRAIN, [])]] = True
  matrix, inputs_of = _matrix(inputs, kept, training, title, own, lines)
  groups = {name: _whole(by_name[name], kept, title, lines) for name in columns}

  def example(entry: Entry) -> dict[str, Any]:
    row = entry.source
    read = {'inputs': matrix[row], **{name: values[row] for name, values in groups.items()}}
    return {**read, 'target': np.float32(numbers[row])} if numbers is not None else read

  dropped = int((~kept).sum())
  notes = [f'inputs of {title}: {_description(inputs_of, matrix[kept])}']
  if dropped:
    notes.append(f'left out {dropped:,} of {len(kept):,} rows of {title}, which miss a value')
  return Contents(
    splits,
    classes,
    lambda: _features(matrix.shape[1], [*groups], numbers is not None),
    example,
    'rows',
    tuple(notes),
    # Rows that are dropped have their share in the columns, too.
    digest=json.dumps([header, [*columns], inputs_of]),
    input_columns=inputs_of,
  )


def _sources(found: Listing, title: str) -> list[tuple[str | None, File]]:
  """The files of a table, each with its split."""
  if found.is_file:
    return [(None, found.files[0])]
  tables = [file for file in found.files if file.name.lower().endswith(_SUFFIXES)]
  stems = [os.path.splitext(file.name)[0].lower() for file in tables]
  if TRAIN not in stems or not {*stems} <= {*SPLITS}:
    raise UserError(
      f'config.data.name={title} is a folder with {some([f.name for f in tables]) or "no table"}; '
      'name a file, or a folder with train.csv and test.csv'
    )
  return [(SPLITS[stem], file) for stem, file in zip(stems, tables, strict=True)]


# --- parsing --------------------------------------------------------------------------------------


def _parse(
  sources: Sequence[tuple[str | None, File]], title: str, own: Own
) -> tuple[list[str], list[_Column], list[str | None], list[str], list[bytes]]:
  """Reads all rows: header, columns, and of every row its split, place and hash."""
  header: list[str] = []
  splits: list[str | None] = []
  places: list[str] = []
  digests: list[bytes] = []
  numbers: list[array.array] = []
  codes: list[array.array] = []
  words: list[dict[str, _Word]] = []
  progress = Progress(f'reading {title}', 0, 'rows')
  for split, file in sources:
    rows, comma = _rows(file, title)
    first = _header(next(rows, (0, []))[1], file, title)
    if header and first != header:
      raise UserError(
        f'{title}: {file.name} has other columns than {sources[0][1].name}; make them equal'
      )
    if not header:
      header = first
      numbers = [array.array('d') for _ in header]
      codes = [array.array('i') for _ in header]
      words = [{} for _ in header]
      as_words = [name in own.table.categories for name in header]
    for line, row in rows:
      if len(row) != len(header):
        raise UserError(
          f'{title}: line {line} of {file.name} has {len(row)} values for the {len(header)} '
          'columns of the header; mend it, or enclose values that hold the delimiter in quotes'
        )
      place = f'line {line}' if len(sources) == 1 else f'line {line} of {file.name}'
      for i, cell in enumerate(row):
        value, code = _cell(cell.strip(), comma, as_words[i], words[i], place)
        numbers[i].append(value)
        codes[i].append(code)
      splits.append(split)
      places.append(place)
      digests.append(hashlib.sha256('\x1f'.join(row).encode('utf-8', 'replace')).digest())
      progress.add()
  if not splits:
    raise UserError(f'{title} has a header and no rows; add some')
  table = [
    _Column(name, np.array(n, np.float64), np.array(c, np.int32), w)
    for name, n, c, w in zip(header, numbers, codes, words, strict=True)
  ]
  return header, table, splits, places, digests


def _cell(
  text: str, comma: bool, as_word: bool, words: dict[str, _Word], place: str
) -> tuple[float, int]:
  """The (number, code) of a cell; see `_Column`."""
  if is_missing(text):
    return math.nan, -2
  value = None if as_word else number(text, comma)
  if value is not None:
    return value, -1
  return math.nan, words.setdefault(text, _Word(len(words), place)).code


def _rows(file: File, title: str) -> tuple[Iterator[tuple[int, list[str]]], bool]:
  """The rows of a file with their line numbers, and whether numbers have a decimal comma."""
  try:
    content = listing.read(file)
    if b'\0' in content:  # Of an archive or a spreadsheet; of UTF-16, too.
      raise UserError(
        f'config.data.name={title}: {file.name} is no text in UTF-8; save the table as CSV UTF-8'
      )
    text = content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise UserError(
      f'config.data.name={title}: {file.name} is not UTF-8 at byte {error.start}; convert it, e.g. '
      f'iconv -f latin1 -t utf8, or save it as CSV UTF-8'
    ) from error
  except ValueError as error:
    raise UserError(f'config.data.name={title}: {file.name} {error}') from error
  rows, comma = read_rows(text)
  return _named(rows, file, title), comma


def _named(
  rows: Iterator[tuple[int, list[str]]], file: File, title: str
) -> Iterator[tuple[int, list[str]]]:
  """The same rows, with the file in the message for what is no CSV."""
  try:
    yield from rows
  except ValueError as error:
    raise UserError(f'{title}: {file.name}: {error}; mend it') from error


def _header(row: Sequence[str], file: File, title: str) -> list[str]:
  names = [cell.strip() for cell in row]
  if not names:
    raise UserError(f'config.data.name={title}: {file.name} is empty')
  if any(number(name, comma=False) is not None for name in names):
    raise UserError(
      f'{title}: the first line of {file.name} holds numbers ({some(names)}), and must name the '
      'columns; add such a line'
    )
  for place, name in enumerate(names, 1):
    if not name:
      raise UserError(
        f'{title}: column {place} of {file.name} has no name; name it, or remove it (pandas writes '
        'no such column with to_csv(…, index=False))'
      )
    if names.count(name) > 1:
      raise UserError(f'{title}: {file.name} has two columns "{name}"; rename one')
  return names


# --- columns --------------------------------------------------------------------------------------


def _check_names(names: Sequence[str], title: str, own: Own, columns: Sequence[str]) -> None:
  """Raises UserError where an option names a column that is not there, or names it twice."""
  table = own.table
  if not table.target:
    raise UserError(
      f'config.data.table.target is missing: name the column of {title} to predict, one of '
      f'{some(names, 20)}'
    )
  for option, given in (
    ('table.target', (table.target,)),
    ('table.ignore', table.ignore),
    ('table.categories', table.categories),
    ('columns', columns),
  ):
    for name in given:
      if name not in names:
        raise UserError(
          f'config.data.{option}={name}: {title} has no such column{nearest(name, names)}; it has: '
          f'{some(names, 20)}'
        )
  if table.target in table.ignore:
    raise UserError(f'config.data.table.ignore={table.target} is the target; leave it out')


def _check_target(target: _Column, title: str, lines: Sequence[str]) -> None:
  if target.words and (target.codes == -1).any():
    raise _mixed(target, title, lines)
  if not target.words and not np.isfinite(target.numbers[~target.missing]).all():
    row = int(np.flatnonzero(~np.isfinite(target.numbers) & ~target.missing)[0])
    raise UserError(f'{title}: {lines[row]}: the target "{target.name}" is infinite; mend it')


def _mixed(column: _Column, title: str, lines: Sequence[str]) -> UserError:
  row = int(np.flatnonzero(column.codes >= 0)[0])
  word = [*column.words][column.codes[row]]
  return UserError(
    f'{title}: the column "{column.name}" holds numbers and words, the first "{word}" on '
    f'{lines[row]}; mend it, leave it empty if it is missing, or read all as words with '
    f'--config.data.table.categories={column.name}'
  )


def _kept_rows(
  target: _Column, inputs: Sequence[_Column], title: str, own: Own, lines: Sequence[str]
) -> np.ndarray:
  """Returns which rows are examples, bool [N]."""
  missing = own.table.missing
  needed = [target] if missing in (MEAN, MEDIAN) else [target, *inputs]
  kept = np.ones(len(lines), bool)
  for column in needed:
    if missing == REFUSE and column.missing.any():
      row = int(np.flatnonzero(column.missing)[0])
      raise UserError(
        f'{title}: the column "{column.name}" lacks values ({int(column.missing.sum()):,}), the '
        f'first on {lines[row]}; --config.data.table.missing=drop leaves such rows out, mean '
        'and median fill in inputs, and config.data.table.ignore leaves a column out'
      )
    kept &= ~column.missing
  if not kept.any():
    raise UserError(
      f'{title} has no row without a missing value; set config.data.table.missing=mean'
    )
  return kept


def _target_values(
  target: _Column, kept: np.ndarray, title: str
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
  """Returns the targets [N] of a regression or None, the classes, and the class of every row."""
  if target.words:
    words = [*target.words]
    labels = [listing.class_name(words[code], title) if code >= 0 else '' for code in target.codes]
    classes = {label for label, keep in zip(labels, kept, strict=True) if keep}
    if len(classes) > max(_MOST_CLASSES, kept.sum() // 2):
      raise UserError(
        f'{title}: the target "{target.name}" has {len(classes):,} different words in '
        f'{int(kept.sum()):,} rows, so that it names no classes; choose another column'
      )
    return None, listing.sorted_classes(classes), labels
  values = target.numbers[kept]
  distinct = np.unique(values)
  if len(distinct) > _MOST_CLASSES or (distinct != np.round(distinct)).any():
    return target.numbers, (), []
  labels = ['' if math.isnan(value) else str(int(value)) for value in target.numbers]
  return target.numbers, tuple(str(int(value)) for value in distinct), labels


def _matrix(
  inputs: Sequence[_Column],
  kept: np.ndarray,
  training: np.ndarray,
  title: str,
  own: Own,
  lines: Sequence[str],
) -> tuple[np.ndarray, tuple[InputColumn, ...]]:
  """Returns the inputs float32 [N, D], and the columns that they are made of."""
  parts, columns = [], []
  for written in inputs:
    column = _without_truth(written)
    if column.words:
      words = tuple(sorted(column.words))
      parts.append(_one_hot(column, words, title, own, lines))
      columns.append(InputColumn(column.name, words, 0.0 if own.table.missing in _FILL else None))
    else:
      fill = _fill(column, training, title, own, lines)
      parts.append(np.where(column.missing & kept, fill, column.numbers)[:, None])
      filled = fill if own.table.missing in _FILL else None
      columns.append(InputColumn(column.name, (), filled, is_truth=bool(written.words)))
  return np.concatenate(parts, 1).astype(np.float32), tuple(columns)


# Computes what a missing number is filled in with, from those of the training rows.
_FILL: Mapping[str, Callable] = {MEAN: np.mean, MEDIAN: np.median}


def _description(columns: Sequence[InputColumn], matrix: np.ndarray) -> str:
  """One line about the columns whose inputs are `matrix` [N, D]."""
  numeric = [column.name for column in columns if not column.words]
  categories = [f'{column.name} ({column.width})' for column in columns if column.words]
  starts = np.cumsum([0, *(column.width for column in columns)])
  constant = [
    column.name
    for column, start in zip(columns, starts)
    if not column.words and np.ptp(matrix[:, start]) == 0
  ]
  described = [f'numbers {some(numeric)}'] if numeric else []
  described += [f'categories with their numbers of words: {some(categories)}'] if categories else []
  described += [f'always the same: {some(constant)}'] if constant else []
  return '; '.join(described)


def _without_truth(column: _Column) -> _Column:
  """Returns a column of true and false as one of 1 and 0, and any other as it is."""
  if not column.words or not {word.lower() for word in column.words} <= {'true', 'false'}:
    return column
  values = np.array([float(word.lower() == 'true') for word in column.words])
  numbers = np.where(column.codes >= 0, values[column.codes], column.numbers)
  return _Column(column.name, numbers, np.where(column.missing, -2, -1), {})


def _fill(
  column: _Column,
  training: np.ndarray,
  title: str,
  own: Own,
  lines: Sequence[str],
) -> float:
  """Returns what missing numbers of a column are filled in with; nan where they are not.

  Raises:
    UserError: a number is too large, or the training rows have none.
  """
  with np.errstate(over='ignore'):
    large = ~np.isfinite(column.numbers.astype(np.float32)) & ~column.missing
  if large.any():
    row = int(np.flatnonzero(large)[0])
    raise UserError(
      f'{title}: {lines[row]}: "{column.name}" is {column.numbers[row]}, which is infinite or too '
      'large for float32; mend it'
    )
  known = column.numbers[training & ~column.missing]
  if not len(known):
    raise UserError(
      f'{title}: the column "{column.name}" has no value in the training rows; leave it out with '
      f'--config.data.table.ignore={column.name}'
    )
  return float(_FILL[own.table.missing](known)) if own.table.missing in _FILL else math.nan


def _one_hot(
  column: _Column, order: Sequence[str], title: str, own: Own, lines: Sequence[str]
) -> np.ndarray:
  """One column of 0 and 1 for each word, float64 [N, words]; all 0 where it is missing."""
  if (column.codes == -1).any():
    raise _mixed(column, title, lines)
  ignore = f'leave it out with --config.data.table.ignore={column.name}'
  word = next(iter(column.words))
  place = column.words[word].place
  chosen = column.name in own.table.categories
  if not chosen and all(_DATE.fullmatch(each) for each in column.words):
    raise UserError(
      f'{title}: the column "{column.name}" holds dates ("{word}" on {place}); write what matters '
      f'of them as numbers, e.g. the month, or {ignore}'
    )
  if not chosen and all(_DECORATED.fullmatch(each) for each in column.words):
    raise UserError(
      f'{title}: the column "{column.name}" holds numbers as "{word}" on {place}; write them with '
      f'digits and a decimal point alone, or {ignore}'
    )
  if len(column.words) > _MOST_WORDS:
    raise UserError(
      f'{title}: the column "{column.name}" holds {len(column.words):,} different words, the first '
      f'"{word}" on {place}, and a category at most {_MOST_WORDS}; {ignore}'
    )
  codes = [column.words[each].code for each in order]
  return (column.codes[:, None] == np.array(codes)).astype(np.float64)


def _whole(column: _Column, kept: np.ndarray, title: str, lines: Sequence[str]) -> np.ndarray:
  """A column as whole numbers, int64 [N]: words are numbered in alphabetical order."""
  wrong = kept & (column.missing | ((column.codes == -1) & (column.numbers % 1 != 0)))
  if wrong.any() or (column.words and (column.codes == -1).any()):
    row = int(np.flatnonzero(wrong)[0]) if wrong.any() else 0
    raise UserError(
      f'config.data.columns={column.name}: {lines[row]} of {title} holds no whole number and no '
      'word; choose another column'
    )
  if not column.words:
    return np.where(column.missing, 0, column.numbers).astype(np.int64)
  rank = {word: place for place, word in enumerate(sorted(column.words))}
  return np.array([*(rank[word] for word in column.words), 0])[column.codes]


def _features(width: int, columns: Sequence[str], numbers: bool) -> dict[str, Any]:
  import tensorflow_datasets as tfds

  found = {'inputs': tfds.features.Tensor(shape=(width,), dtype=np.float32)}
  found.update({name: tfds.features.Scalar(np.int64) for name in columns})
  return {**found, **({'target': tfds.features.Scalar(np.float32)} if numbers else {})}
