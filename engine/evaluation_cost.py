"""The cost of an evaluator beside training, measured at its first evaluation."""

import math
import time
from collections.abc import Callable, Mapping

# The share of the training time that an evaluator may take without being mentioned, and the seconds
# that nobody minds.
MOST_SHARE, FEWEST_SECONDS = 0.1, 1.0


class Stopwatch:
  """Times an evaluation by its progress, which it is called with after every batch.

  Args:
    clock: seconds.
  """

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self._clock = clock
    self._marks: list[tuple[int, float]] = []

  def __call__(self, done: int, figures: Mapping[str, float]) -> None:
    del figures
    self._marks.append((done, self._clock()))

  def estimate(self, number: int) -> float | None:
    """Returns the seconds of a further evaluation, called when this one has ended.

    The pace is that of the second half of the batches: what is compiled or read once comes first.

    Args:
      number: of examples or samples of a further evaluation.

    Returns:
      None where there were too few batches to tell.
    """
    ended = self._clock()
    if len(self._marks) < 3:
      return None
    (first, began), (last, read) = self._marks[len(self._marks) // 2], self._marks[-1]
    if last <= first:
      return None
    return number * (read - began) / (last - first) + (ended - read)


def cost_note(
  where: str, seconds: float, every: int, pace: float, number: int, fewer: Callable[[int], str]
) -> str | None:
  """Returns a sentence where an evaluator takes over a tenth of the training time, else None.

  Args:
    where: the evaluator as a user writes it.
    seconds: of an evaluation of all lanes.
    every: steps between evaluations.
    pace: steps per second of training alone.
    number: of examples or samples of an evaluation.
    fewer: returns the flag that makes them so many; '' if there is none.
  """
  between = every / pace
  share = seconds / (seconds + between)
  if share <= MOST_SHARE or seconds < FEWEST_SECONDS:
    return None
  allowed = between * MOST_SHARE / (1 - MOST_SHARE)
  rarer = f'--{where}.every={math.ceil(every * seconds / allowed)}'
  ways = [way for way in (fewer(int(number * allowed / seconds)), rarer) if way]
  return (
    f'{where} takes {seconds:.1f} s after every {every:,} steps, {share:.0%} of the time; '
    f'{" or ".join(ways)} would take a tenth'
  )
