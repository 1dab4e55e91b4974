"""The sliced distance is the mean of one-dimensional transports."""

import numpy as np
import pytest

from metrics import mind
from metrics.mind import MIND
from tests.metrics.sample_states import figures, normal

METRIC = MIND(most=1000, projections=200, seed=0)


def test_in_one_dimension_by_hand():
  # Sorted: 0, 1, 4 and 1, 3, 8, so (1 + 4 + 16) / 3; times 3 D.
  found = figures(METRIC, [[4], [0], [1]], [[3], [8], [1]])
  assert found == pytest.approx(3 * 21 / 3, rel=1e-12)


def test_moved_features_by_hand():
  # A projection on u moves by u · t, and the mean of its square over all u is ‖t‖² / D.
  features = normal(0, 40, 6)
  step = np.array([2, 0, 0, 0, 1, 0])
  moved = figures(MIND(1000, 20_000, 0), features, features + step)
  assert moved == pytest.approx(3 * 5, rel=0.03)
  along = mind.directions(200, 6, 0)
  expected = 3 * 6 * np.mean((along @ step) ** 2)
  found = figures(METRIC, features, features + step)
  assert found == pytest.approx(expected, rel=1e-5)  # The features are float32.


def test_by_matching_of_pairs_in_every_direction():
  from scipy.optimize import linear_sum_assignment

  x, y = normal(0, 30).astype(np.float32), normal(1, 30, scale=1.5).astype(np.float32)
  along = mind.directions(200, 8, 0)
  np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1)
  costs = []
  for direction in along:
    squared = np.subtract.outer(x @ direction, y @ direction) ** 2
    costs.append(squared[linear_sum_assignment(squared)].mean())
  assert figures(METRIC, x, y) == pytest.approx(24 * np.mean(costs), rel=1e-5)


def test_a_difference_of_the_third_moment_is_seen():
  # The same mean and variance, another shape: the Fréchet distance is about 0.
  rng = np.random.default_rng(0)
  real, alike, skewed = rng.normal(size=(3, 1000, 2))
  skewed = rng.exponential(size=(1000, 2)) - 1
  same, other = figures(METRIC, real, alike), figures(METRIC, real, skewed)
  assert other > 10 * same


def test_of_unequal_numbers_a_subset_is_compared():
  x, y = normal(0, 90), normal(1, 40)
  found = figures(METRIC, x, y)
  assert found == pytest.approx(figures(METRIC, y, x), rel=1e-12)
  assert figures(METRIC, y, y) == 0
  few = MIND(most=40, projections=200, seed=0)
  assert figures(few, x, y) == pytest.approx(found, rel=1e-12)


def test_the_seed_chooses_the_directions():
  found = [figures(MIND(100, 5, seed), normal(0, 40), normal(1, 40)) for seed in (0, 0, 1)]
  assert found[0] == found[1] != found[2]
