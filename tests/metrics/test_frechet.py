import math

import numpy as np
import pytest

from metrics import frechet
from metrics.base import FeatureBatch, Fewest

METRIC = frechet.Frechet()


def gaussian(seed, number, mean, scale):
  rng = np.random.default_rng(seed)
  return mean + rng.normal(size=(number, len(mean))) @ np.diag(scale)


def test_merged_moments_are_those_of_the_whole():
  features = gaussian(0, 101, np.array([1.0, -2.0, 0.5]), [1.0, 3.0, 0.1])
  whole = frechet.moments(features)
  merged = frechet.merge(frechet.moments(features[:17]), frechet.moments(features[17:]))
  assert merged.count == 101
  np.testing.assert_allclose(merged.mean, features.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(merged.scatter / 100, np.cov(features.T), rtol=1e-10)
  np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-10)


def test_distance_of_diagonal_gaussians_by_hand():
  # Exact moments: ‖μ₁ − μ₂‖² + Σ (σ₁ − σ₂)².
  def exact(mean, deviation):
    mean, deviation = np.array(mean), np.array(deviation)
    return frechet.Moments(11, mean, np.diag(deviation**2) * 10)

  found = frechet.distance(exact([0, 1.0], [1.0, 2.0]), exact([3.0, 1.0], [4.0, 0.5]))
  np.testing.assert_allclose(found, 9 + 9 + 2.25, rtol=1e-12)


def test_distance_with_correlation():
  # For commuting covariances the root is the product of roots: rotate a diagonal pair.
  angle = 0.7
  rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

  def exact(deviation):
    covariance = rotation @ np.diag(np.array(deviation) ** 2) @ rotation.T
    return frechet.Moments(11, np.zeros(2), covariance * 10)

  np.testing.assert_allclose(
    frechet.distance(exact([1.0, 2.0]), exact([4.0, 0.5])), 9 + 2.25, rtol=1e-10
  )


def test_singular_covariances_stay_real():
  flat = np.zeros((5, 9))
  flat[:, 0] = np.arange(5)
  assert frechet.distance(frechet.moments(flat), frechet.moments(flat)) == pytest.approx(
    0, abs=1e-9
  )


def added(*parts):
  state = METRIC.empty()
  for part in parts:
    state = METRIC.update(state, FeatureBatch(part, np.arange(len(part))))
  return state


def test_update_in_pieces_merge_and_compare():
  features = np.random.default_rng(0).random((30, 12)).astype(np.float32)
  whole, pieces = added(features), added(features[:7], features[7:])
  assert METRIC.compare(whole, pieces)[0] == pytest.approx(0, abs=1e-9)
  merged = METRIC.merge(added(features[:11]), added(features[11:]))
  assert METRIC.compare(whole, merged)[0] == pytest.approx(0, abs=1e-9)
  for state in (METRIC.merge(METRIC.empty(), whole), METRIC.merge(whole, METRIC.empty())):
    assert state is whole
  # Only the mean moves: 12 features by 0.5 each.
  assert METRIC.compare(whole, added(features + 0.5))[0] == pytest.approx(12 * 0.25, rel=1e-6)


def test_sums_are_float64_whatever_the_pieces():
  # In float32 the squares of 10,000 + noise would swallow the noise.
  features = (10_000 + np.random.default_rng(2).random((200, 1))).astype(np.float32)
  state = added(*np.array_split(features, 23))
  np.testing.assert_allclose(state.scatter / 199, np.cov(features.T.astype(np.float64)), rtol=1e-9)


def test_labels_make_no_difference():
  features = np.random.default_rng(1).random((9, 4))
  with_labels = METRIC.update(
    METRIC.empty(), FeatureBatch(features, np.arange(9), labels=np.arange(9) % 3)
  )
  for a, b in zip(with_labels, added(features)):
    np.testing.assert_array_equal(a, b)
  assert not METRIC.needs_labels


def test_more_rows_than_features_are_needed():
  assert METRIC.fewest(4) == Fewest(5, 5)
  # The covariance of so many has full rank, that of one fewer has not.
  features = np.random.default_rng(3).normal(size=(5, 4))
  assert np.linalg.matrix_rank(added(features).scatter) == 4
  assert np.linalg.matrix_rank(added(features[1:]).scatter) == 3


def test_features_that_are_not_finite():
  features = np.random.default_rng(0).random((9, 4))
  broken = added(np.where(features == features[3, 1], np.nan, features))
  assert math.isnan(METRIC.compare(added(features), broken)[0])


def test_as_torch_fidelity_computes_it():
  pytest.importorskip('torch_fidelity', reason='an extra, in requirements-extras.txt')
  from torch_fidelity.metric_fid import fid_statistics_to_metric

  rng = np.random.default_rng(4)
  mixing = rng.normal(size=(12, 12))
  real = (rng.normal(size=(200, 12)) @ mixing).astype(np.float32)
  samples = (rng.normal(size=(150, 12)) @ mixing.T + 0.3).astype(np.float32)
  statistics = [
    dict(mu=rows.mean(axis=0), sigma=np.cov(rows, rowvar=False))
    for rows in (real.astype(np.float64), samples.astype(np.float64))
  ]
  expected = fid_statistics_to_metric(*statistics, False)['frechet_inception_distance']
  assert METRIC.compare(added(real), added(samples))[0] == pytest.approx(expected, rel=1e-5)
