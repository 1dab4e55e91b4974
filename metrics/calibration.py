"""Whether a classifier is right as often as its confidence says."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrics import charts
from metrics.base import Column, PredictionMetric, Summary, Value
from metrics.require_columns import require
from options import option


class Bins(NamedTuple):
  """Examples by the confidence of their top label, in M bins of equal width.

  Attributes:
    count: int [M].
    confidence: float64 [M], its mean in the bin; NaN where the bin is empty.
    accuracy: float64 [M], likewise.
  """

  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray


def binned(confidence: np.ndarray, correct: np.ndarray, number: int) -> Bins:
  """Bin m of M holds the confidences in ((m − 1) / M, m / M] (Guo et al. 2017, section 2).

  Args:
    confidence: [N] in [0, 1]; 0 falls into the first bin.
    correct: bool [N].
    number: M.
  """
  where = np.searchsorted(np.arange(1, number) / number, confidence, side='left')
  count = np.bincount(where, minlength=number)

  def mean(values: np.ndarray) -> np.ndarray:
    total = np.bincount(where, weights=values, minlength=number)
    return np.divide(total, count, out=np.full(number, np.nan), where=count > 0)

  return Bins(count, mean(confidence), mean(correct))


@dataclasses.dataclass(frozen=True)
class Calibration(PredictionMetric):
  """Calibration of the top label, from `label` and `probability`.

  The headline `ece` is the expected calibration error, Σ count / N · |accuracy − confidence| over
  the bins (Guo et al. 2017, eq. 3). Details are `calibration/maximum`, the largest such difference
  (eq. 5), and `calibration/brier`, the mean of Σₖ (pₖ − [label is k])², from 0 to 2 for any number
  of classes (Brier 1950, eq. 2); scikit-learn halves it for two classes.
  """

  bins: int = option('Bins of equal width between 0 and 1.', low=1, high=1000, default=15)

  def check(self, columns: Mapping[str, Column]) -> None:
    require(columns, 'calibration.Calibration', 'label', 'probability')

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    del class_names
    self.check(columns)
    label, probability = columns['label'], columns['probability'].astype(np.float64)
    bins = binned(probability.max(axis=1), probability.argmax(axis=1) == label, self.bins)
    filled = bins.count > 0
    apart = np.abs(bins.accuracy - bins.confidence)[filled]
    error = float(np.sum(bins.count[filled] * apart) / len(label))
    figures = {'ece': Value(error)}
    if not details:
      return Summary(figures)

    # Not scikit-learn's: it warns where rounding to a low precision moves a sum of probabilities
    # away from 1.
    truth = label[:, None] == np.arange(probability.shape[1])
    brier = np.square(probability - truth).sum(axis=1).mean()
    figures['calibration/maximum'] = Value(float(apart.max()))
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
  """JSON has no NaN."""
  return float(value) if np.isfinite(value) else None
