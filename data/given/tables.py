"""Rows of tables in CSV files, with the columns that the run was trained on."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from data.examples import Examples, Indices
from data.given.base import PIPE, Asked, Given, Reading, decoded, read_file, refuse_others, some
from data.spec import Spec
from errors import UserError, nearest

# What a column of answers is called in our data sets.
_ANSWERS = ('label', 'target')
_DELIMITERS = ',;\t'


class Table(Examples):
  """Rows with the feature `inputs` float32 [D], held in memory."""

  def __init__(self, rows: np.ndarray, spec: Spec):
    self._rows = rows
    self.stamp = ''
    features = {'inputs': spec.features['inputs']}
    self.spec = spec._replace(name='table', split='', n=len(rows), features=features)

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return {'inputs': self._rows[np.asarray(indices, np.int64)]}


def open_tables(asked: Asked, reading: Reading) -> Given:
  """Reads all rows.

  Columns are matched by name where the run knows those of its training data, else by order.

  Raises:
    UserError: a file cannot be read, a column is missing or of an unknown order, or a cell is no
      finite number; there is no row; or another flag has no effect.
  """
  refuse_others(asked, reading, 'rows of a table', ())
  parts, names, remarks = [], [], []
  for place in asked.places:
    content = asked.stdin() if place == PIPE else read_file(place)
    rows, lines, unread = _read(decoded(content, place), place, reading.spec)
    parts.append(rows)
    names += [f'{place}:{line}' for line in lines]
    if unread:
      remarks.append(f'{place}: not read: {some(unread)}')
  rows = np.concatenate(parts)
  if not len(rows):
    raise UserError(f'--input={",".join(asked.places)} has no rows; name a table that has some')
  return Given(Table(rows, reading.spec), names, lambda number: number, remarks=tuple(remarks))


def _read(text: str, place: str, spec: Spec) -> tuple[np.ndarray, list[int], list[str]]:
  """The inputs float32 [N, D] of a table, their lines in the file, and the columns not read."""
  (size,), _ = spec.features['inputs']
  records = _records(text, place)
  if not records:
    return np.empty((0, size), np.float32), [], []
  _, first = records[0]
  if not spec.input_names and all(_is_number(cell) for cell in first):
    header = [f'{number}' for number in range(1, len(first) + 1)]
  else:
    header = [cell.strip() for cell in first]
    records = records[1:]
  columns = _columns(header, place, spec, size)
  faults = []
  rows = np.empty((len(records), size), np.float32)
  for row, (line, cells) in zip(rows, records):
    if len(cells) != len(header):
      faults.append(f'line {line} has {len(cells)} cells and the first line {len(header)}')
      continue
    for at, column in enumerate(columns):
      cell = cells[column].strip()
      with np.errstate(over='ignore'):
        row[at] = _value(cell)
      if not np.isfinite(row[at]):
        word = f'"{cell}" is no finite number' if cell else 'is empty'
        faults.append(f'line {line}, column {header[column]}: {word}')
  if faults:
    raise UserError(f'--input={place}: {some(faults)}; fill them in, or leave the rows out')
  unread = [name for at, name in enumerate(header) if at not in columns]
  return rows, [line for line, _ in records], unread


def _records(text: str, place: str) -> list[tuple[int, list[str]]]:
  """(line, cells) of a table, without blank lines."""
  top = text.split('\n', 1)[0]
  delimiter = max(_DELIMITERS, key=top.count)
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
  try:
    return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
  except csv.Error as error:
    raise UserError(f'--input={place} is no CSV (line {reader.line_num}: {error})') from error


def _columns(header: Sequence[str], place: str, spec: Spec, size: int) -> list[int]:
  """The columns of a table that are the inputs, in the order of training."""
  if spec.input_names:
    return _matched(header, place, spec.input_names)
  inputs = [at for at, name in enumerate(header) if len(header) == size or name not in _ANSWERS]
  if len(inputs) != size:
    raise UserError(
      f'--input={place} has {len(inputs)} columns ({some([header[at] for at in inputs])}), and the '
      f'run was trained on {size}, of which it knows the order and not the names; give those '
      f'{size}, in the order of training'
    )
  return inputs


def _matched(header: Sequence[str], place: str, names: Sequence[str]) -> list[int]:
  lacking = [f'{name}{nearest(name, header)}' for name in names if name not in header]
  if lacking:
    raise UserError(
      f'--input={place} lacks columns that the run was trained on: {some(lacking)}; it has: '
      f'{some(header)}'
    )
  for name in names:
    if list(header).count(name) > 1:
      raise UserError(f'--input={place} has the column {name} twice; leave one of them out')
  return [header.index(name) for name in names]


def _is_number(cell: str) -> bool:
  return not cell.strip() or not math.isnan(_value(cell))


def _value(cell: str) -> float:
  """The number in a cell; NaN for none."""
  try:
    return math.nan if '_' in cell else float(cell)  # Python reads 1_000 as a number
  except ValueError:
    return math.nan
