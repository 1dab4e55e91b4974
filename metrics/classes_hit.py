"""Classes hit: to how many classes samples belong, and how their frequencies differ."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np

from metrics.base import FeatureBatch, SampleMetric


class Frequencies(NamedTuple):
  """Counts of rows by class.

  Attributes:
    counts: int64 [K], of the class with the highest probability; [0] if there were no rows.
    undefined: number of rows whose probabilities are not finite.
  """

  counts: np.ndarray
  undefined: int | np.ndarray


def reverse_kl(found: np.ndarray, wanted: np.ndarray) -> float:
  """Returns Σₖ qₖ log(qₖ / pₖ) in nats, for q the shares of counts `found` and p those of `wanted`.

  It is NaN where `found` has a class that `wanted` lacks: the divergence would be infinite.

  Args:
    found: counts [K].
    wanted: counts [K].
  """
  present = found > 0
  if np.any(wanted[present] == 0):
    return float('nan')
  shares, expected = found[present] / found.sum(), wanted[present] / wanted.sum()
  return float(np.sum(shares * np.log(shares / expected)))


@dataclasses.dataclass(frozen=True)
class ClassesHit(SampleMetric):
  """The number of classes that samples belong to, and the reverse KL divergence of classes.

  A sample belongs to the class to which the extractor gives the highest probability. `classes` is
  the number of those that have a sample, `class_kl` the divergence KL(samples ‖ real examples) of
  the frequencies of classes. On the 1,000 classes of StackedMNIST, with 25,600 samples, these are
  the modes and the reverse KL of Metz et al. (2017) and Lin et al. (2018).
  """

  figures: ClassVar[tuple[str, ...]] = ('classes', 'class_kl')
  needs_probabilities: ClassVar[bool] = True

  def empty(self) -> Frequencies:
    return Frequencies(np.zeros(0, np.int64), 0)

  def update(self, state: Frequencies, batch: FeatureBatch) -> Frequencies:
    rows = np.asarray(batch.probabilities)
    finite = np.isfinite(rows).all(axis=1)
    counts = np.bincount(rows[finite].argmax(axis=1), minlength=rows.shape[1])
    undefined = int(np.count_nonzero(~finite))
    return self.merge(state, Frequencies(counts.astype(np.int64), undefined))

  def merge(self, a: Frequencies, b: Frequencies) -> Frequencies:
    if not len(a.counts) or not len(b.counts):
      return a if len(a.counts) else b
    return Frequencies(a.counts + b.counts, a.undefined + b.undefined)

  def compare(
    self, reference: Frequencies, samples: Frequencies, held_out: Any = None
  ) -> tuple[float, ...]:
    del held_out
    if reference.undefined or samples.undefined:
      return (float('nan'),) * len(self.figures)
    hit = float(np.count_nonzero(samples.counts))
    return hit, reverse_kl(samples.counts, reference.counts)
