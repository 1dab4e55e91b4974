"""The parent of metrics of samples that need single rows, not sums over them."""

import dataclasses
import math

import numpy as np

from metrics import kept_rows
from metrics.base import FeatureBatch, SampleMetric
from metrics.kept_rows import KeptRows
from options import option


@dataclasses.dataclass(frozen=True)
class OfKeptRows(SampleMetric):
  """A metric of the features of at most `most` examples and as many samples.

  Where there are more, it is that of a random subset, the same one each time.
  """

  most: int = option(
    'Most examples, and most samples, that are compared; where there are more, a random subset.',
    low=2,
    high=10_000_000,
  )

  def empty(self) -> KeptRows:
    return kept_rows.empty()

  def update(self, state: KeptRows, batch: FeatureBatch) -> KeptRows:
    return kept_rows.update(state, batch, self.most)

  def merge(self, a: KeptRows, b: KeptRows) -> KeptRows:
    return kept_rows.merge(a, b, self.most)


def rows_of_quantile(quantile: float) -> int:
  """Returns how many rows have a quantile: of fewer it would lie below the smallest distance."""
  return max(2, math.ceil(1 / quantile))


def check_most(most: int, quantile: float) -> None:
  """Raises ValueError where `most` rows are too few for a quantile."""
  needed = rows_of_quantile(quantile)
  if most < needed:
    raise ValueError(
      f'most={most} must be at least {needed}, of which one is the share quantile={quantile}; '
      'raise it'
    )


def are_finite(*states: KeptRows) -> bool:
  """Whether all features are finite."""
  return all(np.isfinite(state.features).all() for state in states)
