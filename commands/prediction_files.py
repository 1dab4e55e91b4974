"""Predictions in a file: rows as .csv or .jsonl, arrays as .npz."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

import files
from errors import UserError

if TYPE_CHECKING:
  from commands.predict_run import Predicted


def check_out(out: str) -> None:
  """Makes the folder of a file; UserError where its ending is unknown or it cannot be written."""
  if Path(out).suffix not in _SAVE:
    raise UserError(f'--out={out} must end in {", ".join([*_SAVE][:-1])} or {[*_SAVE][-1]}')
  files.prepare_out(out)


def write(out: str, predicted: Iterator[Predicted], facts: Mapping[str, Any]) -> None:
  """Writes predictions as they come; the file is there when all of them are.

  Args:
    out: a place that `check_out` took.
    predicted: of every example.
    facts: further arrays of an .npz.

  Raises:
    UserError: the file cannot be written.
  """
  save = _SAVE[Path(out).suffix]
  try:
    files.write(out, lambda file: save(file, predicted, facts))
  except OSError as error:
    raise UserError(f'cannot write {out}: {files.why_not_written(out, error)}') from error


def _save_csv(file: BinaryIO, predicted: Iterator[Predicted], facts: Mapping[str, Any]) -> None:
  """A line for each row, below the names of the columns."""
  del facts
  # File names can have bytes that are no characters.
  text = io.TextIOWrapper(file, 'utf-8', errors='backslashreplace', newline='')
  writer = csv.writer(text)
  is_first = True
  for each in predicted:
    for row in each.rows(True):
      if is_first:
        writer.writerow(['input', *row])
        is_first = False
      writer.writerow([each.name, *map(_plain, row.values())])
  text.flush()
  text.detach()  # or it would close the file


def _save_json_lines(
  file: BinaryIO, predicted: Iterator[Predicted], facts: Mapping[str, Any]
) -> None:
  """An object for each row."""
  del facts
  for each in predicted:
    for row in each.rows(True):
      line = {'input': each.name, **{name: _plain(value) for name, value in row.items()}}
      text = json.dumps(line, ensure_ascii=False)
      file.write(f'{text}\n'.encode(errors='backslashreplace'))


def _save_arrays(file: BinaryIO, predicted: Iterator[Predicted], facts: Mapping[str, Any]) -> None:
  """The arrays of all examples [N, …], and `input` [N], the name of what each belongs to."""
  names: list[str] = []
  columns: dict[str, list[np.ndarray]] = {}
  for each in predicted:
    names.append(each.name)
    for name, values in each.values.items():
      columns.setdefault(name, []).append(values)
  arrays = {name: np.stack(values) for name, values in columns.items()}
  np.savez_compressed(file, input=np.array(names), **arrays, **facts)


_SAVE: Mapping[str, Callable[[BinaryIO, Iterator[Predicted], Mapping[str, Any]], None]] = {
  '.csv': _save_csv,
  '.jsonl': _save_json_lines,
  '.npz': _save_arrays,
}


def _plain(value: Any) -> Any:
  """A value as Python has it: the shortest decimal that is this float; None for NaN and inf."""
  if isinstance(value, (float, np.floating)):
    return float(str(value)) if math.isfinite(value) else None
  return int(value) if isinstance(value, np.integer) else value
