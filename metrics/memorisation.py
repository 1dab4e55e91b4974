"""Memorisation: samples that are copies of training examples."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from metrics import distances
from metrics.base import Fewest
from metrics.kept_rows import KeptRows
from metrics.of_kept_rows import OfKeptRows, are_finite, check_most, rows_of_quantile
from options import option

_UNDEFINED = (float('nan'), float('nan'))


class Copies:
  """Tells which samples are copies of training examples.

  Args:
    train: features [N, D] of two or more training examples.
    held_out: features [H, D] of examples that the model was not trained on.
    quantile: of the distances from held-out to training examples, the one up to which a sample is
      memorised.
  """

  def __init__(self, train: np.ndarray, held_out: np.ndarray, quantile: float):
    self._features = train
    self._train, held_out_points = distances.points(train, held_out)
    usual, _ = distances.nearest(held_out_points, self._train)
    self._near = np.quantile(np.sqrt(usual), quantile)

  def of(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of the samples [M, D] are memorised, and which are authentic: bool [M]."""
    _, points = distances.points(self._features, samples)
    away, neighbours = distances.nearest(points, self._train)
    which, places = np.unique(neighbours, return_inverse=True)
    apart = distances.to_neighbour(self._train, 1, which)
    return np.sqrt(away) <= self._near, away > apart[places]


@dataclasses.dataclass(frozen=True)
class Memorisation(OfKeptRows):
  """The share of samples that are too near to a training example, and the authenticity.

  `memorised` is the share of samples that are as near to their nearest training example as only the
  share `quantile` of held-out examples are, or nearer. A model that has learned the distribution
  gets `quantile`, one that copies gets 1, and one whose every tenth sample is a copy a tenth more.
  Meehan et al. (2020, section 3) compare the same two sets of distances by their ranks, as the
  probability that a sample is nearer than a held-out example; there every tenth sample moves 0.5 to
  0.55, which blurred samples without copies do too.

  `authenticity` is the share of samples that are farther from their nearest training example than
  that one is from the training example nearest to it (Alaa et al. 2022), 0 for copies.

  The reference must be the training split. A copy of an example that is not among the `most` kept
  is not found.
  """

  figures: ClassVar[tuple[str, ...]] = ('memorised', 'authenticity')
  needs_held_out: ClassVar[bool] = True
  most: int = option(
    'Most training examples, held-out examples and samples that are compared; choose as many as '
    'the training split has.',
    low=2,
    high=10_000_000,
  )
  quantile: float = option(
    'The share of held-out examples that would count as memorised.', above=0, high=0.5
  )

  def __post_init__(self):
    check_most(self.most, self.quantile)

  def fewest(self, dimension: int) -> Fewest:
    del dimension
    return Fewest(rows_of_quantile(self.quantile), 1)

  def compare(
    self, reference: KeptRows, samples: KeptRows, held_out: KeptRows | None = None
  ) -> tuple[float, ...]:
    return self.comparison(reference, held_out)(samples)

  def comparison(
    self, reference: KeptRows, held_out: KeptRows | None = None
  ) -> Callable[[KeptRows], tuple[float, ...]]:
    if not are_finite(reference, held_out):
      return lambda samples: _UNDEFINED
    copies = Copies(reference.features, held_out.features, self.quantile)
    # Whether a sample is memorised and authentic does not depend on the other samples, so subsets
    # of the same samples need no distances again.
    known: dict[int, tuple[bool, bool]] = {}

    def compare(samples: KeptRows) -> tuple[float, ...]:
      if not are_finite(samples):
        return _UNDEFINED
      rows = samples.priorities.tolist()
      new = np.array([row not in known for row in rows])
      if new.any():
        answers = zip(*copies.of(samples.features[new]))
        known.update(zip(samples.priorities[new].tolist(), answers))
      memorised, authentic = np.mean([known[row] for row in rows], axis=0)
      return float(memorised), float(authentic)

    return compare
