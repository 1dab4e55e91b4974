"""Confidence intervals of metrics of samples, by leaving out one group of samples after another."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

State = TypeVar('State')


def leave_one_out(states: Sequence[State], merge: Callable[[State, State], State]) -> list[State]:
  """Returns for each of two or more states all the others merged.

  It merges 3 (n − 2) times, by prefixes and suffixes, where merging each anew would take n (n − 2).
  """
  last = len(states) - 1
  before, after = [states[0]], [states[last]]
  for at in range(1, last):
    before.append(merge(before[-1], states[at]))
    after.append(merge(states[last - at], after[-1]))
  after.reverse()  # after[i] holds the states from i + 1 on.
  middle = [merge(before[at - 1], after[at]) for at in range(1, last)]
  return [after[0], *middle, before[-1]]


def interval(value: float, without: np.ndarray) -> tuple[float, float]:
  """Returns the 95 % confidence interval (low, high) of a figure of samples.

  The variance is the jackknife's, (n − 1)/n Σ (θ₋ᵢ − mean)² (Efron and Stein 1981, eq. 1.5), and
  the interval is that of Student's t with n − 1 degrees of freedom. The bootstrap would repeat
  samples, which metrics of nearest neighbours and of duplicates take for a fault of the generator.

  Args:
    value: of all samples.
    without: float [n], the figure with one of n groups of equal size left out.
  """
  from scipy import stats

  number = len(without)
  variance = (number - 1) / number * np.sum((without - np.mean(without)) ** 2)
  half = stats.t.ppf(0.975, number - 1) * np.sqrt(variance)
  return float(value - half), float(value + half)
