"""Fréchet distance between two sets of features."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from metrics.base import FeatureBatch, Fewest, SampleMetric


class Moments(NamedTuple):
  """First and second moments of features, float64.

  Attributes:
    count: number of feature vectors.
    mean: [D]; a scalar 0 if `count` is 0.
    scatter: [D, D], Σ (f − mean)(f − mean)ᵀ; a scalar 0 if `count` is 0.
  """

  count: int | np.ndarray
  mean: np.ndarray
  scatter: np.ndarray


@np.errstate(invalid='ignore')  # What is not finite stays so, and the distance is NaN.
def moments(features: np.ndarray) -> Moments:
  """Returns the moments of features [N, D]."""
  features = np.asarray(features, np.float64)
  mean = features.mean(axis=0)
  centred = features - mean
  return Moments(len(features), mean, centred.T @ centred)


@np.errstate(invalid='ignore')
def merge(a: Moments, b: Moments) -> Moments:
  """Returns the moments of both sets together (Chan et al. 1979, eq. 2.1)."""
  if not a.count or not b.count:
    return a if a.count else b
  count = a.count + b.count
  difference = b.mean - a.mean
  mean = a.mean + difference * (b.count / count)
  between = np.outer(difference, difference) * (a.count * b.count / count)
  scatter = a.scatter + b.scatter + between
  return Moments(count, mean, scatter)


def distance(a: Moments, b: Moments) -> float:
  """Returns ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) (Dowson and Landau 1982, eq. 4).

  This is the Fréchet distance of two Gaussians with these moments. The trace of the square root is
  computed from the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, so that no complex numbers arise.

  Args:
    a: moments of two or more feature vectors.
    b: moments of two or more feature vectors.

  Returns:
    The distance; NaN if a feature is not finite.
  """
  if not (np.isfinite(a.scatter).all() and np.isfinite(b.scatter).all()):
    return float('nan')
  first, second = a.scatter / (a.count - 1), b.scatter / (b.count - 1)
  values, vectors = np.linalg.eigh(first)
  root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
  crossed = np.linalg.eigvalsh(root @ second @ root)
  trace_of_root = np.sqrt(np.clip(crossed, 0, None)).sum()
  difference = a.mean - b.mean
  return float(difference @ difference + np.trace(first) + np.trace(second) - 2 * trace_of_root)


@dataclasses.dataclass(frozen=True)
class Frechet(SampleMetric):
  """The Fréchet distance (Heusel et al. 2017, eq. 6), with covariances divided by n − 1.

  On the features of an Inception network it is the FID; on other features it is comparable only on
  the same features, for as many samples and the same reference. It needs more examples and samples
  than there are features: the covariance of fewer is singular, and the distance mostly bias.
  """

  def fewest(self, dimension: int) -> Fewest:
    return Fewest(dimension + 1, dimension + 1)

  def empty(self) -> Moments:
    return Moments(0, np.zeros(()), np.zeros(()))

  def update(self, state: Moments, batch: FeatureBatch) -> Moments:
    return merge(state, moments(batch.features)) if len(batch.features) else state

  def merge(self, a: Moments, b: Moments) -> Moments:
    return merge(a, b)

  def compare(self, reference: Moments, samples: Moments, held_out: Any = None) -> tuple[float]:
    del held_out
    return (distance(reference, samples),)
