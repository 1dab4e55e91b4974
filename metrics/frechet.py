"""Fréchet distance between two sets of images, in a feature space that is named with the figure."""

import dataclasses
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
  """Mergeable first and second moments of features, float64.

  Attributes:
    count: number of feature vectors.
    mean: [D], zeros when empty.
    scatter: [D, D], Σ (f − mean)(f − mean)ᵀ.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray


def moments(features: np.ndarray) -> Moments:
  """Moments of features [N, D]."""
  features = np.asarray(features, np.float64)
  mean = features.mean(axis=0)
  centred = features - mean
  return Moments(len(features), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
  """Moments of both sets together (Chan et al. 1979, eq. 2.1)."""
  count = a.count + b.count
  if count == 0:
    return a
  apart = b.mean - a.mean
  mean = a.mean + apart * (b.count / count)
  scatter = a.scatter + b.scatter + np.outer(apart, apart) * (a.count * b.count / count)
  return Moments(count, mean, scatter)


def distance(a: Moments, b: Moments) -> float:
  """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of the two Gaussians (Dowson and Landau 1982, eq. 4).

  The trace of the root is taken from the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, so that no
  complex numbers arise.

  Raises:
    ValueError: a set has fewer than two feature vectors.
  """
  if min(a.count, b.count) < 2:
    raise ValueError('a Fréchet distance needs at least two images on either side')
  first, second = a.scatter / (a.count - 1), b.scatter / (b.count - 1)
  values, vectors = np.linalg.eigh(first)
  root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
  crossed = np.linalg.eigvalsh(root @ second @ root)
  trace_of_root = np.sqrt(np.clip(crossed, 0, None)).sum()
  apart = a.mean - b.mean
  return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * trace_of_root)


@dataclasses.dataclass(frozen=True)
class FrechetPixels:
  """Fréchet distance on block-averaged pixels in [0, 1]: `side × side × C` features.

  It is not the FID, whose features are an Inception network's: compare it only with itself, at the
  same `side`, the same number of images and the same reference split.

  Attributes:
    side: blocks along either axis; an image's height and width are cropped to a multiple of it.
  """

  side: int

  def empty(self) -> Moments:
    return Moments(0, np.zeros(()), np.zeros(()))

  def update(self, state: Moments, images: np.ndarray, labels: np.ndarray | None = None) -> Moments:
    """Adds images float [N, H, W, C]; labels make no difference."""
    del labels
    new = moments(self.features(images))
    return new if state.count == 0 else merge(state, new)

  def features(self, images: np.ndarray) -> np.ndarray:
    """[N, H, W, C] to [N, side·side·C]."""
    number, height, width, channels = images.shape
    if self.side < 1 or min(height, width) < self.side:
      raise ValueError(
        f"side={self.side} must be from 1 to the image's {min(height, width)} pixels"
      )
    rows, columns = height // self.side, width // self.side
    cropped = images[:, : rows * self.side, : columns * self.side]
    blocks = cropped.reshape(number, self.side, rows, self.side, columns, channels)
    return blocks.mean(axis=(2, 4)).reshape(number, -1)

  def compare(self, reference: Moments, samples: Moments) -> float:
    return distance(reference, samples)
