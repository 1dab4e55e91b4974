"""Duplicates: samples that are nearly equal to another sample."""

import dataclasses
from typing import Any

import numpy as np

from metrics import distances
from metrics.base import Fewest
from metrics.kept_rows import KeptRows
from metrics.of_kept_rows import OfKeptRows, are_finite, check_most, rows_of_quantile
from options import option


def share(real: np.ndarray, samples: np.ndarray, quantile: float) -> float:
  """Returns the share of samples that have a duplicate.

  Args:
    real: features [N, D].
    samples: features [N, D], as many: the more there are, the nearer neighbours are.
    quantile: of the distances from real examples to the nearest other one, the one up to which a
      sample has a duplicate.
  """
  real, samples = distances.points(real, samples)
  apart = distances.to_neighbour(real, 1)
  near = np.quantile(np.sqrt(apart), quantile) ** 2 + distances.tolerance(real, samples)
  return float(np.mean(distances.to_neighbour(samples, 1) <= near))


@dataclasses.dataclass(frozen=True)
class Duplicates(OfKeptRows):
  """The share of samples whose nearest other sample is nearer than real examples are to each other.

  Near means at most the quantile `quantile` of the distances from real examples to the nearest
  other real example, of as many examples as samples. A model that has learned the distribution gets
  `quantile`, one that makes few different samples 1. Arora and Zhang (2018) look for duplicates
  among samples by eye, to bound the support of the distribution.
  """

  quantile: float = option(
    'The share of real examples that would count as duplicates.', above=0, high=0.5
  )

  def __post_init__(self):
    check_most(self.most, self.quantile)

  def fewest(self, dimension: int) -> Fewest:
    del dimension
    number = rows_of_quantile(self.quantile)
    return Fewest(number, number)

  def compare(self, reference: KeptRows, samples: KeptRows, held_out: Any = None) -> tuple[float]:
    del held_out
    if not are_finite(reference, samples):
      return (float('nan'),)
    # Rows are in the order of pseudo-random priorities.
    number = min(len(reference.features), len(samples.features))
    return (share(reference.features[:number], samples.features[:number], self.quantile),)
