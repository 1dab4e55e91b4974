"""Accuracy of a classifier in groups of examples, and the gap between the groups."""

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
  """Accuracy for each value of integer columns, with bootstrap intervals (Efron 1979).

  The headline `accuracy_gap_COLUMN` is the largest minus the smallest accuracy over the values that
  occur in the split; details are `accuracy/COLUMN/VALUE`, by the class's name for `label`. An
  interval is from the 2.5th to the 97.5th percentile of the figure when each group is resampled
  with replacement. That of the gap is for the difference between the two groups that are the best
  and the worst of the split itself, so it may reach below 0.

  Two limits of the bootstrap: a group with accuracy 0 or 1 has an interval of no width; and the
  best and the worst of many small groups differ by chance alone, for which the interval of the gap
  does not correct.
  """

  by: Sequence[str] = option(
    'Columns of one integer per example, by whose values the examples are grouped.',
    default=('label',),
  )
  resamples: int = option(
    'Number of bootstrap resamples; a 95 % interval needs 100 of them.',
    low=100,
    high=1_000_000,
    default=1000,
  )
  seed: int = option('Seed of the resampling.', low=0, default=0)

  def __post_init__(self):
    if not self.by:
      raise ValueError("by=() must name a column, such as by=('label',)")

  def check(self, columns: Mapping[str, Column]) -> None:
    require(columns, 'groups.Gaps', 'label', 'prediction')
    integer = [
      name
      for name, column in columns.items()
      if len(column.shape) == 1 and column.dtype.kind in 'biu'
    ]
    for name in self.by:
      if name not in integer:
        raise UserError(
          f'groups.Gaps: there is no integer column "{name}"{nearest(name, integer)} to group by; '
          f'there are: {", ".join(sorted(integer))}'
        )

  def headlines(self, columns: Mapping[str, Column]) -> tuple[str, ...]:
    del columns
    return tuple(f'accuracy_gap_{name}' for name in self.by)

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    self.check(columns)
    correct = columns['prediction'] == columns['label']
    headlines, per_group = {}, {}
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
        figure = Value(float(accuracy[i]), _interval(resampled[:, i]))
        per_group[f'accuracy/{name}/{written}'] = figure
    return Summary({**headlines, **per_group} if details else headlines)

  def _resampled(self, count: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Returns resampled accuracies [resamples, G] of G groups with `count` and `accuracy` [G].

    n samples from n zeros and ones of mean p sum to Binomial(n, p), so that sum is sampled.
    """
    # A new generator for each column, whose figures so do not depend on the other columns.
    random = np.random.default_rng(self.seed)
    return random.binomial(count, accuracy, size=(self.resamples, len(count))) / count


def _interval(resampled: np.ndarray) -> tuple[float, float]:
  low, high = np.percentile(resampled, _PERCENTILES)
  return float(low), float(high)
