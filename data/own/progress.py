"""Lines on stderr while many files are read."""

import sys
import time

# Seconds before the first line, and between later ones.
_FIRST_PAUSE, _PAUSE = 2.0, 10.0


class Progress:
  """Counts what is done, and prints a line now and then.

  Args:
    doing: e.g. 'reading folder:/photos'.
    total: how many there are; 0 where that is not known.
    unit: of what, e.g. 'pictures'.
    once: whether it is done only once, as the lines then say.
  """

  def __init__(self, doing: str, total: int, unit: str, once: bool = True):
    self._doing, self._total, self._unit = f'{doing}, once' if once else doing, total, unit
    self._done, self._next = 0, time.monotonic() + _FIRST_PAUSE

  def add(self, number: int = 1) -> None:
    """Counts `number` more."""
    self._done += number
    if time.monotonic() > self._next:
      of = f' of {self._total:,}' if self._total else ''
      say(f'{self._doing}: {self._done:,}{of} {self._unit}')
      self._next = time.monotonic() + _PAUSE


def say(line: str) -> None:
  """Prints a line on stderr: stdout is the caller's."""
  print(line, file=sys.stderr, flush=True)


def some(names: 'list[str] | tuple[str, ...]', most: int = 5) -> str:
  """Lists the first of many names."""
  return ', '.join([*names[:most], *(['…'] if len(names) > most else [])])
