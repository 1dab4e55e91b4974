"""Inception Score: how certain the classes of samples are, and how many of them there are."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np

from metrics.base import FeatureBatch, SampleMetric


class Certainty(NamedTuple):
  """Sums over probabilities of classes, float64.

  Attributes:
    count: number of rows.
    probabilities: [K], the sum of the rows; a scalar 0 if `count` is 0.
    information: the sum of Σₖ pₖ log pₖ over the rows.
  """

  count: int | np.ndarray
  probabilities: np.ndarray
  information: float | np.ndarray


def information(probabilities: np.ndarray) -> np.ndarray:
  """Returns Σₖ pₖ log pₖ, in which 0 log 0 is 0, over the last axis."""
  logarithms = np.log(np.where(probabilities > 0, probabilities, 1))
  return np.sum(probabilities * logarithms, axis=-1)


@dataclasses.dataclass(frozen=True)
class InceptionScore(SampleMetric):
  """The Inception Score exp(mean of KL(p(y | x) ‖ p(y))) of Salimans et al. (2016), section 4.

  It is between 1 and the number of classes, and high where every sample is of a certain class and
  all classes are equally frequent; it does not look at real examples. It has its published meaning
  on the probabilities of an Inception network. Published scores are means over ten parts of the
  samples, each with its own p(y), and therefore somewhat lower than this score of all samples.
  """

  needs_probabilities: ClassVar[bool] = True

  def empty(self) -> Certainty:
    return Certainty(0, np.zeros(()), 0.0)

  def update(self, state: Certainty, batch: FeatureBatch) -> Certainty:
    rows = np.asarray(batch.probabilities, np.float64)
    return self.merge(state, Certainty(len(rows), rows.sum(axis=0), information(rows).sum()))

  def merge(self, a: Certainty, b: Certainty) -> Certainty:
    return Certainty(*(x + y for x, y in zip(a, b)))

  def compare(self, reference: Any, samples: Certainty, held_out: Any = None) -> tuple[float]:
    del reference, held_out
    if not (np.isfinite(samples.probabilities).all() and np.isfinite(samples.information)):
      return (float('nan'),)
    marginal = samples.probabilities / samples.count
    return (float(np.exp(samples.information / samples.count - information(marginal))),)
