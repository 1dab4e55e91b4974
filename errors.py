"""The one exception whose message is meant for the person at the terminal."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar('Value')
# Most characters of a message, of its beginning and of its end.
_FIRST, _LAST = 1500, 500


class UserError(Exception):
  """A mistake the user can mend: one sentence that names the way out.

  The root scripts print it without a traceback and leave with exit code 2. Anything else that is
  raised is a bug and keeps its traceback. Of a very long message, such as one with a value of
  thousands of entries, the middle is left out.
  """

  def __init__(self, message: str):
    if len(message) > _FIRST + _LAST:
      message = f'{message[:_FIRST]} … {message[-_LAST:]}'
    super().__init__(message)


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns ' (did you mean "x"?)' for the entry of `known` closest to `name`, or ''."""
  # Capitals are a slip like any other, and no difference.
  entries = {str(entry).lower(): str(entry) for entry in known}
  close = difflib.get_close_matches(str(name).lower(), entries, n=1, cutoff=0.5)
  return f' (did you mean "{entries[close[0]]}"?)' if close else ''


def choose(known: Mapping[str, Value], name: str, where: str) -> Value:
  """Returns `known[name]`.

  Args:
    known: what there is, by name.
    name: the entry asked for.
    where: the option that holds the name, as a user writes it, e.g. 'config.train.precision'.

  Raises:
    UserError: there is no such entry; names the nearest one and lists all.
  """
  if name in known:
    return known[name]
  raise UserError(
    f'{where}={name} is unknown{nearest(name, known)}; there are: '
    f'{", ".join(map(str, known)) or "none"}'
  )
