"""Rows of features kept for metrics that compare them pair by pair, chosen by their numbers."""

from typing import NamedTuple

import numpy as np

from metrics.base import FeatureBatch


class KeptRows(NamedTuple):
  """At most so many rows of features, in the order of their priorities.

  Attributes:
    features: float32 [N, D]; [0, 0] if N is 0.
    priorities: uint64 [N], ascending, pseudo-random functions of the rows' numbers.
  """

  features: np.ndarray
  priorities: np.ndarray


def empty() -> KeptRows:
  """Returns no rows."""
  return KeptRows(np.zeros((0, 0), np.float32), np.zeros(0, np.uint64))


def update(state: KeptRows, batch: FeatureBatch, most: int) -> KeptRows:
  """Returns the rows of `state` and of a batch, `most` of those with the lowest priorities."""
  added = KeptRows(np.asarray(batch.features, np.float32), priorities(batch.numbers))
  return merge(state, added, most)


def merge(a: KeptRows, b: KeptRows, most: int) -> KeptRows:
  """Returns the rows of both, `most` of those with the lowest priorities.

  Which rows are kept depends neither on the order of merging nor on the sizes of the parts: they
  are a random subset of all, and the same one each time (bottom-k sampling).
  """
  if not len(a.priorities):
    a = KeptRows(b.features[:0], a.priorities)
  if not len(b.priorities):
    b = KeptRows(a.features[:0], b.priorities)
  both = np.concatenate([a.priorities, b.priorities])
  kept = np.argsort(both, kind='stable')[:most]
  return KeptRows(np.concatenate([a.features, b.features])[kept], both[kept])


def priorities(numbers: np.ndarray) -> np.ndarray:
  """Returns uint64 [N], one for each number; other numbers have others.

  The mixing function of SplitMix64 (Steele et al. 2014, figure 11), a bijection of 64 bits.
  """
  with np.errstate(over='ignore'):
    z = np.asarray(numbers).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
