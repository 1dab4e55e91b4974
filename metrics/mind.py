"""Sliced Wasserstein distance between two sets of features."""

import dataclasses
from typing import Any

import numpy as np

from metrics.base import Fewest
from metrics.kept_rows import KeptRows
from metrics.of_kept_rows import OfKeptRows, are_finite
from options import option

_BLOCK = 64  # directions


def directions(number: int, dimension: int, seed: int) -> np.ndarray:
  """Returns random unit vectors float64 [number, dimension]."""
  drawn = np.random.default_rng(seed).standard_normal((number, dimension))
  return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sliced_distance(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> float:
  """Returns the mean over directions of the squared 2-Wasserstein distance of the projections.

  In one dimension the optimal transport pairs the sorted values, so that of N values each it is the
  mean of their squared differences (Bonneel et al. 2015).

  Args:
    x: features [N, D].
    y: features [N, D], as many.
    along: unit vectors [P, D].
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  total = 0.0
  for start in range(0, len(along), _BLOCK):
    some = along[start : start + _BLOCK]
    difference = np.sort(some @ x.T, axis=1) - np.sort(some @ y.T, axis=1)
    total += np.vdot(difference, difference)
  return float(total / len(x) / len(along))


@dataclasses.dataclass(frozen=True)
class MIND(OfKeptRows):
  """The Monge Inception distance of Berthet et al. (2026, arXiv:2605.06797), on any features.

  It is 3 D times the mean squared 2-Wasserstein distance of projections of the D features on random
  unit vectors, of as many examples as samples: of the larger set a random subset is taken. Unlike
  the Fréchet distance it needs no covariance, and sees differences beyond the first two moments.
  It is 0 for equal sets only, and biased upwards by the more the fewer samples there are, so that
  numbers are comparable only for as many samples.

  Of the paper only the abstract and the introduction were at hand; the estimator and its factor
  3 D are those of torch-fidelity's `metric_mind.py` of 2026.
  """

  projections: int = option('Random directions; the paper uses up to 1,000.', low=1, high=100_000)
  seed: int = option('Seed of the directions.', low=0, high=2**32 - 1)

  def fewest(self, dimension: int) -> Fewest:
    del dimension
    return Fewest(2, 2)

  def compare(self, reference: KeptRows, samples: KeptRows, held_out: Any = None) -> tuple[float]:
    del held_out
    if not are_finite(reference, samples):
      return (float('nan'),)
    number = min(len(reference.features), len(samples.features))
    dimension = samples.features.shape[1]
    # Rows are in the order of pseudo-random priorities.
    found = sliced_distance(
      reference.features[:number],
      samples.features[:number],
      directions(self.projections, dimension, self.seed),
    )
    return (3 * dimension * found,)
