"""Early stopping: how long a run has waited for a gain."""

import math
from typing import NamedTuple


class Patience(NamedTuple):
  """What an early stop depends on; kept in every checkpoint, so that a resumed run waits on.

  Attributes:
    best: the best figure so far; None before the first.
    waited: evaluations since.
  """

  best: float | None = None
  waited: int = 0

  def after(self, value: float, mode: str, minimum_gain: float) -> 'Patience':
    """The state after an evaluation that found `value`; mode 'min' or 'max'. NaN is no gain."""
    if math.isnan(value):
      return Patience(self.best, self.waited + 1)
    if self.best is None:
      return Patience(value, 0)
    gain = self.best - value if mode == 'min' else value - self.best
    return Patience(value, 0) if gain > minimum_gain else Patience(self.best, self.waited + 1)
