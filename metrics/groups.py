"""Accuracy of a classifier in groups of examples, and how far the groups lie apart."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from errors import UserError, nearest
from metrics.base import Column, PredictionMetric, Summary, Value
from metrics.require_columns import require
from options import option

# The percentiles that hold the middle 95 %.
_PERCENTILES = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Gaps(PredictionMetric):
  """Accuracy per value of integer columns, with bootstrap intervals (Efron 1979).

  The headline `accuracy_gap_COLUMN` is the largest minus the smallest accuracy over the values that
  the split holds; details are `accuracy/COLUMN/VALUE`, by the class's name for `label`. Intervals
  are from the 2.5th to the 97.5th percentile of what the figure comes to when each group is drawn
  again from itself with replacement; for the gap, of the difference between the two groups that
  were found best and worst, so that it may reach below 0.

  Two limits of that: a group without a mistake, or with nothing else, gets an interval of no width;
  and the best and the worst of many small groups lie apart by chance alone, which the interval of
  the gap does not take off.
  """

  by: Sequence[str] = option(
    'Columns of one integer per example, by whose values the examples are grouped.',
    default=('label',),
  )
  resamples: int = option(
    'Times that the groups are drawn again; fewer than 100 give no 95 % interval.',
    low=100,
    high=1_000_000,
    default=1000,
  )
  seed: int = option('Seed of those draws.', low=0, default=0)

  def __post_init__(self):
    if not self.by:
      raise ValueError("by=() must name a column, such as by=('label',)")

  def check(self, columns: Mapping[str, Column]) -> None:
    require(columns, 'groups.Gaps', 'label', 'prediction')
    whole = [
      name
      for name, column in columns.items()
      if len(column.shape) == 1 and column.dtype.kind in 'biu'
    ]
    for name in self.by:
      if name not in whole:
        raise UserError(
          f'groups.Gaps: there is no column of integers "{name}"{nearest(name, whole)} to group '
          f'by; there are: {", ".join(sorted(whole))}'
        )

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    self.check(columns)
    correct = columns['prediction'] == columns['label']
    headlines, rest = {}, {}
    for name in self.by:
      values, member = np.unique(columns[name], return_inverse=True)
      count = np.bincount(member)
      accuracy = np.bincount(member, weights=correct) / count
      resampled = self._resampled(count, accuracy)
      best, worst = accuracy.argmax(), accuracy.argmin()
      headlines[f'accuracy_gap_{name}'] = Value(
        float(accuracy[best] - accuracy[worst]),
        _interval(resampled[:, best] - resampled[:, worst]),
      )
      for i, value in enumerate(values):
        written = class_names[value] if name == 'label' and class_names else value
        rest[f'accuracy/{name}/{written}'] = Value(float(accuracy[i]), _interval(resampled[:, i]))
    return Summary({**headlines, **rest} if details else headlines)

  def _resampled(self, count: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Accuracies [resamples, G] of groups drawn again, of `count` and `accuracy` [G].

    n draws from n zeros and ones of mean p sum to Binomial(n, p), so no row need be drawn.
    """
    # Anew for each column, so that its figures do not depend on which others are asked for.
    random = np.random.default_rng(self.seed)
    return random.binomial(count, accuracy, size=(self.resamples, len(count))) / count


def _interval(resampled: np.ndarray) -> tuple[float, float]:
  low, high = np.percentile(resampled, _PERCENTILES)
  return float(low), float(high)
