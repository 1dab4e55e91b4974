"""Tables in CSV: rows of cells, and the numbers in them, for training and for prediction alike."""

import csv
import io
import re
from collections.abc import Iterator

_DELIMITERS = ',;\t|'
# What stands for a missing value, in lower case.
_MISSING = ('', 'na', 'n/a', '#n/a', 'nan', '-nan', 'null', 'none', '?')
_DECIMAL_COMMA = re.compile(r'[-+]?\d+,\d+([eE][-+]?\d+)?')


def read_rows(text: str) -> tuple[Iterator[tuple[int, list[str]]], bool]:
  """Reads the rows of a table, separated by whichever delimiter gives the first most columns.

  Returns:
    (line, cells) of every row that is not blank, the header among them; and whether numbers may
    have a decimal comma. The iterator raises ValueError, which names the line, for what is no CSV.
  """
  first = next(filter(str.strip, text.splitlines()), '')
  delimiter = max(_DELIMITERS, key=lambda each: _columns(first, each))
  return _rows(text, delimiter), delimiter == ';'


def is_missing(cell: str) -> bool:
  """Whether a cell, without spaces around it, stands for a missing value."""
  return cell.lower() in _MISSING


def number(cell: str, comma: bool) -> float | None:
  """Returns the number in a cell, which can be infinite; None where it is a word.

  Args:
    cell: without spaces around it.
    comma: whether '1,5' is a number.
  """
  plain = cell.replace(',', '.') if comma and _DECIMAL_COMMA.fullmatch(cell) else cell
  try:
    return None if '_' in plain else float(plain)  # Python groups digits with '_'
  except ValueError:
    return None


def _columns(line: str, delimiter: str) -> int:
  try:
    return len(next(csv.reader([line], delimiter=delimiter)))
  except csv.Error:  # `_rows` says it, with the line
    return 0


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
  while True:
    line = reader.line_num + 1
    try:
      row = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      raise ValueError(f'line {line} is no CSV ({error})') from error
    if any(cell.strip() for cell in row):
      yield line, row
