"""The mean of a figure over repeated trainings, and its confidence interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Spread(NamedTuple):
  """A figure over repeated trainings: folds or seeds.

  Attributes:
    mean: of the K values.
    sd: their standard deviation, with K − 1 in the denominator.
    interval: (low, high) that holds the mean with 95 % confidence.
  """

  mean: float
  sd: float
  interval: tuple[float, float]


def spread(values: Sequence[float]) -> Spread:
  """Mean, standard deviation and Student's interval x̄ ± t·s/√K of K ≥ 2 values, t with K − 1
  degrees of freedom. NaN where a value is.

  For folds the interval is approximate, and as a rule too narrow: they share training examples, so
  their values are correlated, and no unbiased estimate of the mean's variance exists (Bengio and
  Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation", theorem 1).
  """
  from scipy import stats

  number, mean, sd = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
  half = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * sd / math.sqrt(number)
  return Spread(mean, sd, (mean - half, mean + half))
