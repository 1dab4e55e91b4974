"""Calibration: whether a classifier's confidence equals its accuracy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrics import charts
from metrics.base import Column, PredictionMetric, Summary, Value
from metrics.require_columns import require
from options import option


class Bins(NamedTuple):
  """Statistics of examples in M bins of equal width by the confidence of their top label.

  Attributes:
    count: int [M], number of examples in the bin.
    confidence: float64 [M], mean confidence in the bin; NaN if it is empty.
    accuracy: float64 [M], accuracy in the bin; NaN if it is empty.
  """

  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray


def make_bins(confidence: np.ndarray, correct: np.ndarray, number: int) -> Bins:
  """Sorts examples into bins; bin m of M is ((m − 1) / M, m / M] (Guo et al. 2017, section 2).

  Args:
    confidence: [N] in [0, 1]; 0 falls into the first bin.
    correct: bool [N], whether the top label is the true one.
    number: M, number of bins.
  """
  where = np.searchsorted(np.arange(1, number) / number, confidence, side='left')
  count = np.bincount(where, minlength=number)

  def mean(values: np.ndarray) -> np.ndarray:
    total = np.bincount(where, weights=values, minlength=number)
    return np.divide(total, count, out=np.full(number, np.nan), where=count > 0)

  return Bins(count, mean(confidence), mean(correct))


@dataclasses.dataclass(frozen=True)
class Calibration(PredictionMetric):
  """The calibration of the top label, from the columns `label` and `probability`.

  The headline `ece` is the expected calibration error, Σ count / N · |accuracy − confidence| over
  the bins (Guo et al. 2017, eq. 3). Details are `calibration/maximum`, the largest such difference
  (eq. 5), and `calibration/brier`, the mean of Σₖ (pₖ − [label is k])², from 0 to 2 for any number
  of classes (Brier 1950, eq. 2); scikit-learn halves it for two classes.
  """

  bins: int = option('Bins of equal width between 0 and 1.', low=1, high=1000, default=15)

  def check(self, columns: Mapping[str, Column]) -> None:
    require(columns, 'calibration.Calibration', 'label', 'probability')

  def headlines(self, columns: Mapping[str, Column]) -> tuple[str, ...]:
    del columns
    return ('ece',)

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    del class_names
    self.check(columns)
    label, probability = columns['label'], columns['probability'].astype(np.float64)
    bins = make_bins(probability.max(axis=1), probability.argmax(axis=1) == label, self.bins)
    filled = bins.count > 0
    gaps = np.abs(bins.accuracy - bins.confidence)[filled]
    error = float(np.sum(bins.count[filled] * gaps) / len(label))
    figures = {'ece': Value(error)}
    if not details:
      return Summary(figures)

    # Not scikit-learn's, which warns if probabilities of low precision do not add up to 1.
    truth = label[:, None] == np.arange(probability.shape[1])
    brier = np.square(probability - truth).sum(axis=1).mean()
    figures['calibration/maximum'] = Value(float(gaps.max()))
    figures['calibration/brier'] = Value(float(brier))
    table = [
      {
        'from': m / self.bins,
        'to': (m + 1) / self.bins,
        'count': int(bins.count[m]),
        'confidence': _or_none(bins.confidence[m]),
        'accuracy': _or_none(bins.accuracy[m]),
      }
      for m in range(self.bins)
    ]
    picture = charts.to_pixels(charts.reliability(*bins, error))
    return Summary(figures, {'reliability': table}, {'reliability': picture})


def _or_none(value: float) -> float | None:
  """Returns the value, or None for NaN, which JSON does not have."""
  return float(value) if np.isfinite(value) else None
