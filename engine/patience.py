"""Early stopping: how long a lane has waited for a gain."""

import math
from typing import NamedTuple


class Patience(NamedTuple):
  """The state of early stopping; kept in every checkpoint, so that a resumed run waits on.

  Attributes:
    best: the best figure so far; None before the first.
    best_step: the step it was found at.
    waited: evaluations since.
  """

  best: float | None = None
  best_step: int = 0
  waited: int = 0

  def after(self, value: float, step: int, mode: str, minimum_gain: float) -> 'Patience':
    """Returns the state after an evaluation.

    Args:
      value: the figure; NaN is no gain.
      step: of the evaluation.
      mode: 'min' or 'max'.
      minimum_gain: a gain must exceed this.
    """
    if math.isnan(value):
      return self._replace(waited=self.waited + 1)
    if self.best is None:
      return Patience(value, step, 0)
    gain = self.best - value if mode == 'min' else value - self.best
    if gain > minimum_gain:
      return Patience(value, step, 0)
    return self._replace(waited=self.waited + 1)

  def exhausted(self, limit: int) -> bool:
    """Returns whether the wait is over; a limit of 0 waits for ever."""
    return bool(limit) and self.waited >= limit
