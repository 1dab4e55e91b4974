"""Samples that are nearly the same are found, if real examples are not."""

import numpy as np
import pytest

from metrics.duplicates import Duplicates
from tests.metrics.sample_states import figures, normal

METRIC = Duplicates(most=2000, quantile=0.02)


def test_by_hand():
  # On a line. Distances to the next real example are 1, 1, 2 and 4, so the median is 1.5; of the
  # samples 1, 1, 1.6 and 6.4.
  found = figures(Duplicates(4, 0.5), [[0], [1], [3], [7]], [[0], [1], [2.6], [9]])
  assert found == 2 / 4


def test_of_the_distribution_itself():
  found = figures(METRIC, normal(0, 1000), normal(1, 1000))
  assert found == pytest.approx(0.02, abs=0.015)


@pytest.mark.parametrize('noise', [0, 1e-3])
def test_some_samples_twice(noise):
  samples = normal(1, 1000)
  samples[:100] = samples[100:200] + noise * normal(2, 100)
  found = figures(METRIC, normal(0, 1000), samples)
  assert found == pytest.approx(0.2 + 0.8 * 0.02, abs=0.02)


def test_a_collapsed_generator():
  assert figures(METRIC, normal(0, 500), 1e-3 * normal(1, 500)) == 1
  assert figures(METRIC, normal(0, 500), np.ones((500, 8))) == 1


@pytest.mark.parametrize(('examples', 'samples'), [(500, 500), (8000, 500), (500, 8000)])
def test_as_many_examples_as_samples_are_compared(examples, samples):
  # In the plane the next of 16 times as many is at a quarter of the distance.
  metric = Duplicates(most=8000, quantile=0.5)
  found = figures(metric, normal(0, examples, 2), normal(1, samples, 2))
  assert found == pytest.approx(0.5, abs=0.1)


def test_where_real_examples_are_duplicates():
  real = np.repeat(normal(0, 500), 2, axis=0)
  assert figures(METRIC, real, real + 5) == 1
  assert figures(METRIC, real, normal(1, 1000)) == 0


def test_as_all_pairs_say():
  real, samples = (normal(seed, 200, 3).astype(np.float32) for seed in (0, 1))

  def alone(rows):
    apart = np.sqrt(((rows[:, None].astype(np.float64) - rows[None]) ** 2).sum(-1))
    return np.sort(apart, axis=1)[:, 1]

  expected = np.mean(alone(samples) <= np.quantile(alone(real), 0.3))
  assert figures(Duplicates(200, 0.3), real, samples) == pytest.approx(expected, abs=1e-12)
