"""Vendi score: how many different samples there are in effect."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from metrics.base import FeatureBatch, SampleMetric


class Similarity(NamedTuple):
  """Sums over features of length 1, float64.

  Attributes:
    count: number of feature vectors.
    zeros: how many of them are 0, and have no direction.
    products: [D, D], the sum of f fᵀ over the others; a scalar 0 if `count` is 0.
  """

  count: int | np.ndarray
  zeros: int | np.ndarray
  products: np.ndarray


@dataclasses.dataclass(frozen=True)
class Vendi(SampleMetric):
  """The Vendi score of Friedman and Dieng (2023), definition 3.1, with the cosine as similarity.

  It is the exponential of the entropy of the eigenvalues of the matrix of similarities divided by
  the number of samples: 1 where all are alike, and as many as there are samples or features,
  whichever are fewer, where they are orthogonal. It does not look at real examples, but means most
  beside the score of as many of these. Eigenvalues are those of the [D, D] matrix of the features,
  which are the same, so that all samples count and none is kept. Vectors of zeros are like each
  other and unlike all others.
  """

  def empty(self) -> Similarity:
    return Similarity(0, 0, np.zeros(()))

  def update(self, state: Similarity, batch: FeatureBatch) -> Similarity:
    rows = np.asarray(batch.features, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    zeros = int(np.count_nonzero(norms == 0))
    with np.errstate(invalid='ignore'):  # What is not finite stays so.
      directions = rows / np.where(norms == 0, 1, norms)
      products = directions.T @ directions
    return self.merge(state, Similarity(len(rows), zeros, products))

  def merge(self, a: Similarity, b: Similarity) -> Similarity:
    return Similarity(*(x + y for x, y in zip(a, b)))

  def compare(self, reference: Any, samples: Similarity, held_out: Any = None) -> tuple[float]:
    del reference, held_out
    if not np.isfinite(samples.products).all():
      return (float('nan'),)
    values = np.append(np.linalg.eigvalsh(samples.products), samples.zeros) / samples.count
    values = values[values > 0]
    return (float(np.exp(-np.sum(values * np.log(values)))),)
