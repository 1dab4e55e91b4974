"""The table of predictions on the terminal, which grows row by row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from objectives.base import Row

# Columns of a terminal that the name of an input takes at most.
_NAME = 40
# The table's first rows, from which the widths of its columns are taken.
_MEASURED = 50
_BETWEEN = '  '
# Numbers between these are written with four decimals, others with four digits.
_LEAST, _MOST = 1e-3, 1e5


class Table:
  """Prints rows below each other, in columns as wide as the first rows need.

  Args:
    summary: see `objectives.base.Predictor`.
    most: rows to show, and summaries; None for all.
    held: whether nothing is printed before `close`.
  """

  def __init__(
    self,
    summary: Callable[[Mapping[str, np.ndarray]], str],
    most: int | None = None,
    held: bool = False,
  ):
    self._summary, self._most, self._held = summary, most, held
    self._waiting: list[Sequence[str] | str] | None = []
    self._widths: Sequence[int] = ()
    self._head: Sequence[str] = ()
    self._input: int | None = None
    self._name = ''
    self._rows = 0
    self._summaries = 0
    self._numbers: dict[str, list[float]] = {}

  def add(self, input: int, name: str, rows: Sequence[Row]) -> None:
    """Adds rows of an input; those of one input follow each other, and its name stands once."""
    if input != self._input:
      self._end_input()
    for row in rows:
      self._head = self._head or ['input', *row]
      if self._most is None or self._rows < self._most:
        self._put([cell(name, _NAME) if input != self._input else '', *map(cell, row.values())])
      self._input, self._name = input, name
      self._rows += 1
      for column, value in row.items():
        if isinstance(value, (float, np.floating)):
          self._numbers.setdefault(column, []).append(float(value))

  def close(self) -> int:
    """Prints what is still held back; returns how many rows are not shown."""
    self._end_input()
    self._print_waiting()
    return 0 if self._most is None else max(self._rows - self._most, 0)

  def _end_input(self) -> None:
    if self._numbers:
      line = self._summary({name: np.array(column) for name, column in self._numbers.items()})
      self._numbers = {}
      if line and (self._most is None or self._summaries < self._most):
        self._put(f'{cell(self._name, _NAME)}: {line}')
        self._summaries += 1

  def _put(self, line: Sequence[str] | str) -> None:
    if self._waiting is None:
      print(self._laid_out(line), flush=True)
      return
    self._waiting.append(line)
    if len(self._waiting) >= _MEASURED and not self._held:
      self._print_waiting()

  def _print_waiting(self) -> None:
    if self._waiting is None:
      return
    waiting, self._waiting = self._waiting, None
    cells = [self._head, *(line for line in waiting if not isinstance(line, str))]
    self._widths = [max(map(_width, column)) for column in zip(*cells)]
    for line in [self._head, *waiting] if waiting else []:
      print(self._laid_out(line))
    print(end='', flush=True)

  def _laid_out(self, line: Sequence[str] | str) -> str:
    if isinstance(line, str):
      return line
    padded = (text + ' ' * (wide - _width(text)) for text, wide in zip(line, self._widths))
    return _BETWEEN.join(padded).rstrip()


def cell(value: Any, most: int = 0) -> str:
  """A value in one line: numbers rounded, and what cannot be seen as Python writes it.

  Args:
    value: a number or a text.
    most: characters, 0 for any number; of a longer path the end is shown, of other text the start.
  """
  if isinstance(value, (float, np.floating)):
    return f'{value:.4f}' if value == 0 or _LEAST <= abs(value) < _MOST else f'{value:.4g}'
  text = str(value)
  if most and len(text) > most:
    is_path = '/' in text and ' ' not in text
    text = f'…{text[1 - most :]}' if is_path else f'{text[: most - 1]}…'
  if not text.isprintable() or text != text.strip() or not text:
    return repr(text)
  return text


def _width(text: str) -> int:
  from rich.cells import cell_len

  return cell_len(text)
