"""Rows of tables in CSV files and arrays, with the columns that the run was trained on."""

from collections.abc import Sequence

import numpy as np

from data.array_files import as_rows
from data.spec import InputColumn, Spec
from data.table_files import is_missing, number, read_rows
from data.unlabelled import arrays
from data.unlabelled.base import (
  PIPE,
  InputRequest,
  Inputs,
  Preparation,
  decoded,
  read_file,
  refuse_others,
  some,
)
from errors import UserError, nearest

# What a column of answers is called in our data sets.
_ANSWERS = ('label', 'target')


def open_tables(asked: InputRequest, reading: Preparation) -> Inputs:
  """Reads all rows.

  Columns are matched by name where the run knows those of its training data, else by order.

  Raises:
    UserError: a file cannot be read, a column is missing or of an unknown order, or a cell is not
      what the run was trained on; there is no row; or another flag has no effect.
  """
  refuse_others(asked, reading, 'rows of a table', ())
  if arrays.are_arrays(asked):
    return _in_arrays(asked, reading)
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
  return Inputs(
    arrays.Arrays('inputs', rows, reading.spec),
    names,
    lambda number: number,
    remarks=tuple(remarks),
  )


def _in_arrays(asked: InputRequest, reading: Preparation) -> Inputs:
  """Rows in .npz files, which have no names of columns."""
  (size,), _ = reading.spec.features['inputs']
  parts, names = [], []
  for place in asked.places:
    if reading.spec.input_columns:
      raise UserError(
        f'--input={place} has no names of columns, by which {reading.workdir} reads a table; give '
        'it as a .csv'
      )
    name, array = arrays.read_inputs(place)
    try:
      rows = as_rows(name, array)
    except ValueError as error:
      raise UserError(f'--input={place}: {error}') from error
    if rows.shape[1] != size:
      raise UserError(
        f'--input={place}: "{name}" has {rows.shape[1]} columns, and the run was trained on '
        f'{size}; give those, in the order of training'
      )
    parts.append(rows)
    names += arrays.names_of(place, rows)
  held = arrays.Arrays('inputs', np.concatenate(parts), reading.spec)
  return Inputs(held, names, lambda number: number)


def _read(text: str, place: str, spec: Spec) -> tuple[np.ndarray, list[int], list[str]]:
  """The inputs float32 [N, D] of a table, their lines in the file, and the columns not read."""
  (size,), _ = spec.features['inputs']
  records, comma = _records(text, place)
  if not records:
    return np.empty((0, size), np.float32), [], []
  header = [cell.strip() for cell in records[0][1]]
  if spec.input_columns or not all(_is_number(cell, comma) for cell in header):
    records = records[1:]
  else:
    header = [f'{number}' for number in range(1, len(header) + 1)]
  columns = _columns(header, place, spec, size)
  faults = []
  rows = np.empty((len(records), size), np.float32)
  for row, (line, cells) in zip(rows, records):
    if len(cells) != len(header):
      faults.append(f'line {line} has {len(cells)} cells and the first line {len(header)}')
      continue
    at = 0
    for place_of, column in columns:
      try:
        with np.errstate(over='ignore'):
          row[at : at + column.width] = _inputs(cells[place_of].strip(), column, comma)
        if not np.isfinite(row[at : at + column.width]).all():
          raise ValueError(f'"{cells[place_of]}" is no finite number')
      except ValueError as error:
        faults.append(f'line {line}, column {header[place_of]}: {error}')
      at += column.width
  if faults:
    raise UserError(f'--input={place}: {some(faults)}; correct them, or leave the rows out')
  used = {place_of for place_of, _ in columns}
  unread = [name for at, name in enumerate(header) if at not in used]
  return rows, [line for line, _ in records], unread


def _records(text: str, place: str) -> tuple[list[tuple[int, list[str]]], bool]:
  """(line, cells) of a table, without blank lines; and whether numbers have a decimal comma."""
  rows, comma = read_rows(text)
  try:
    return [*rows], comma
  except ValueError as error:
    raise UserError(f'--input={place}: {error}; mend it') from error


def _columns(
  header: Sequence[str], place: str, spec: Spec, size: int
) -> list[tuple[int, InputColumn]]:
  """The columns of a table that are inputs, with their places, in the order of training."""
  if spec.input_columns:
    return _matched(header, place, spec.input_columns)
  inputs = [at for at, name in enumerate(header) if len(header) == size or name not in _ANSWERS]
  if len(inputs) != size:
    raise UserError(
      f'--input={place} has {len(inputs)} columns ({some([header[at] for at in inputs])}), and the '
      f'run was trained on {size}, of which it knows the order and not the names; give those '
      f'{size}, in the order of training'
    )
  return [(at, InputColumn(header[at])) for at in inputs]


def _matched(
  header: Sequence[str], place: str, columns: Sequence[InputColumn]
) -> list[tuple[int, InputColumn]]:
  names = [column.name for column in columns]
  lacking = [f'{name}{nearest(name, header)}' for name in names if name not in header]
  if lacking:
    raise UserError(
      f'--input={place} lacks columns that the run was trained on: {some(lacking)}; it has: '
      f'{some(header)}'
    )
  for name in names:
    if list(header).count(name) > 1:
      raise UserError(f'--input={place} has the column {name} twice; leave one of them out')
  return [(header.index(column.name), column) for column in columns]


def _inputs(cell: str, column: InputColumn, comma: bool) -> Sequence[float]:
  """The inputs that a cell becomes, `column.width` of them.

  Raises:
    ValueError: it is missing, no number, or no word of the column; says which.
  """
  if is_missing(cell) and cell not in column.words:
    if column.fill is None:
      raise ValueError(f'"{cell}" is no finite number' if cell else 'is empty')
    return [0.0] * column.width if column.words else [column.fill]
  if column.words:
    if cell not in column.words:
      raise ValueError(
        f'"{cell}" is none of the words of training{nearest(cell, column.words)}: '
        f'{some(column.words)}'
      )
    return [float(cell == word) for word in column.words]
  if column.is_truth and cell.lower() in ('true', 'false'):
    return [float(cell.lower() == 'true')]
  return [_value(cell, comma)]


def _is_number(cell: str, comma: bool) -> bool:
  return not cell or number(cell, comma) is not None


def _value(cell: str, comma: bool) -> float:
  """The number in a cell; ValueError for none."""
  value = number(cell, comma)
  if value is None:
    raise ValueError(f'"{cell}" is no finite number')
  return value
