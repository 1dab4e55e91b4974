"""Precision, recall, density and coverage of samples, from nearest neighbours."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from metrics import distances
from metrics.base import Fewest
from metrics.kept_rows import KeptRows
from metrics.of_kept_rows import OfKeptRows, are_finite
from options import option


def precision_to_coverage(
  real: np.ndarray, samples: np.ndarray, k: int
) -> tuple[float, float, float, float]:
  """Returns precision, recall, density and coverage.

  Every row has a ball that reaches to its k-th nearest other row of its own set.

  Args:
    real: features [N, D], more than k.
    samples: features [M, D], more than k.
    k: which neighbour bounds a ball.
  """
  real, samples = distances.points(real, samples)
  rounding = distances.tolerance(real, samples)
  real_radii = distances.to_neighbour(real, k) + rounding
  sample_radii = distances.to_neighbour(samples, k) + rounding
  precise = balls = 0
  covered, recalled = np.zeros((2, len(real.rows)), bool)
  for some, squared in distances.blocks(samples, real):
    inside = squared <= real_radii
    precise += np.count_nonzero(inside.any(axis=1))
    balls += np.count_nonzero(inside)
    covered |= inside.any(axis=0)
    recalled |= (squared <= sample_radii[some, None]).any(axis=0)
  number = len(samples.rows)
  return (
    float(precise / number),
    float(recalled.mean()),
    float(balls / (k * number)),
    float(covered.mean()),
  )


@dataclasses.dataclass(frozen=True)
class PRDC(OfKeptRows):
  """Improved precision and recall, density and coverage.

  Precision is the share of samples within the ball of a real example, recall the share of real
  examples within the ball of a sample (Kynkäänniemi et al. 2019, eqs. 1 and 2). Density counts the
  balls of real examples that a sample is in, divided by k, and may exceed 1; coverage is the share
  of real examples whose ball holds a sample (Naeem et al. 2020, section 3). One outlier among
  the real examples raises precision, and one among the samples recall; density and coverage are
  less sensitive. All of them depend on the numbers of examples and samples.
  """

  figures: ClassVar[tuple[str, ...]] = ('precision', 'recall', 'density', 'coverage')
  k: int = option(
    'Which nearest neighbour bounds a ball: 3 in the paper of precision and recall, 5 in that of '
    'density and coverage.',
    low=1,
    high=1000,
  )

  def __post_init__(self):
    if self.most <= self.k:
      raise ValueError(f'most={self.most} must be above k={self.k}; raise it')

  def fewest(self, dimension: int) -> Fewest:
    del dimension
    return Fewest(self.k + 1, self.k + 1)

  def compare(
    self, reference: KeptRows, samples: KeptRows, held_out: Any = None
  ) -> tuple[float, ...]:
    del held_out
    if not are_finite(reference, samples):
      return (float('nan'),) * len(self.figures)
    return precision_to_coverage(reference.features, samples.features, self.k)
