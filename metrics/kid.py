"""Kernel distance between two sets of features."""

import dataclasses
from typing import Any

import numpy as np

from metrics.base import Fewest
from metrics.kept_rows import KeptRows
from metrics.of_kept_rows import OfKeptRows, are_finite

_BLOCK = 1024  # rows


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the unbiased estimate of the squared maximum mean discrepancy.

  It is the mean of k over pairs of different rows of x, plus that of y, minus twice the mean over
  pairs of one of each (Gretton et al. 2012, eq. 3), for the polynomial kernel
  k(x, y) = (x·y / D + 1)³ (Bińkowski et al. 2018, section 4).

  Args:
    x: features [N, D], two or more.
    y: features [M, D], two or more.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  n, m = len(x), len(y)
  within = _within(x) / (n * (n - 1)) + _within(y) / (m * (m - 1))
  between = sum(_sum(x[rows], y) for rows in _blocks(x)) / (n * m)
  return float(within - 2 * between)


def _within(x: np.ndarray) -> float:
  """The sum of k over pairs of different rows."""
  total = 0.0
  for rows in _blocks(x):
    own = x[rows]
    diagonal = np.sum((np.einsum('nd,nd->n', own, own) / x.shape[1] + 1) ** 3)
    # k is symmetric: pairs of two blocks are computed once.
    total += _sum(own, own) - diagonal + 2 * _sum(own, x[rows.stop :])
  return total


def _sum(x: np.ndarray, y: np.ndarray) -> float:
  """The sum of k over all pairs."""
  kernel = x @ y.T
  kernel /= x.shape[1]
  kernel += 1
  return float(np.vdot(kernel * kernel, kernel))


def _blocks(x: np.ndarray) -> list[slice]:
  return [slice(start, start + _BLOCK) for start in range(0, len(x), _BLOCK)]


@dataclasses.dataclass(frozen=True)
class KID(OfKeptRows):
  """The kernel distance of Bińkowski et al. (2018), called KID on an Inception network's features.

  It is unbiased for any number of samples, so that it may be below 0 where the distributions are
  alike. It is computed exactly from all pairs of the rows that are kept. What is published is often
  its mean over 100 random subsets of 1,000, which estimates the same number with added noise: over
  all subsets of that size, the mean is the number computed here.
  """

  def fewest(self, dimension: int) -> Fewest:
    del dimension
    return Fewest(2, 2)

  def compare(self, reference: KeptRows, samples: KeptRows, held_out: Any = None) -> tuple[float]:
    del held_out
    if not are_finite(reference, samples):
      return (float('nan'),)
    return (squared_discrepancy(reference.features, samples.features),)
