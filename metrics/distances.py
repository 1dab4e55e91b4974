"""Squared Euclidean distances between sets of features, block by block, in float64."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Numbers in a block of distances, 64 MB.
_BLOCK = 2**23
# Relative to the largest squared norm, what rounding may make of a difference of two distances.
_ROUNDING = 1e-12


class Points(NamedTuple):
  """Features moved by a common vector, which leaves their distances unchanged.

  Attributes:
    rows: float64 [N, D].
    squares: float64 [N], their squared norms.
  """

  rows: np.ndarray
  squares: np.ndarray


def points(*sets: np.ndarray) -> list[Points]:
  """Returns sets of features [N, D], moved so that the mean of the first is 0.

  Distances are computed as ‖x‖² + ‖y‖² − 2x·y, which loses digits where norms are large.
  """
  centre = np.mean(sets[0], axis=0, dtype=np.float64)
  moved = [features - centre for features in sets]
  return [Points(rows, np.einsum('nd,nd->n', rows, rows)) for rows in moved]


def tolerance(*sets: Points) -> float:
  """Returns the difference of squared distances up to which these count as equal.

  The distance of two equal rows is 0, and ties are ties, only up to rounding, which depends on the
  size of blocks and on the machine.
  """
  return _ROUNDING * max(each.squares.max() for each in sets)


def blocks(a: Points, b: Points) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields slices of the rows of `a`, and their squared distances to all rows of `b`.

  Distances are float64 [n, M].
  """
  size = max(1, _BLOCK // max(1, len(b.rows)))
  for start in range(0, len(a.rows), size):
    some = slice(start, min(start + size, len(a.rows)))
    squared = a.rows[some] @ b.rows.T
    squared *= -2
    squared += a.squares[some, None]
    squared += b.squares
    yield some, np.maximum(squared, 0, out=squared)


def nearest(a: Points, b: Points) -> tuple[np.ndarray, np.ndarray]:
  """Returns for every row of `a` the squared distance to the nearest row of `b`, and which it is.

  Returns:
    float64 [N] and int [N].
  """
  which = [squared.argmin(axis=1) for _, squared in blocks(a, b)]
  found = np.concatenate(which)
  # Of pairs alone the difference itself costs little, and has no rounding to speak of.
  difference = a.rows - b.rows[found]
  return np.einsum('nd,nd->n', difference, difference), found


def to_neighbour(a: Points, k: int, chosen: np.ndarray | None = None) -> np.ndarray:
  """Returns the squared distance of rows to their k-th nearest other row of the same set.

  Args:
    a: more than k rows.
    k: 1 for the nearest.
    chosen: int [n], the rows that are asked about; None for all.

  Returns:
    float64 [n].
  """
  chosen = np.arange(len(a.rows)) if chosen is None else chosen
  found = np.empty(len(chosen))
  for some, squared in blocks(Points(a.rows[chosen], a.squares[chosen]), a):
    squared[np.arange(len(squared)), chosen[some]] = np.inf
    squared.partition(k - 1, axis=1)
    found[some] = squared[:, k - 1]
  return found
