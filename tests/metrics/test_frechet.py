import numpy as np
import pytest

from metrics import frechet


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


def test_pixels_are_block_means():
  metric = frechet.FrechetPixels(side=2)
  images = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 1)
  np.testing.assert_allclose(metric.features(images)[0], [2.5, 4.5, 10.5, 12.5])


def test_update_in_pieces_and_compare():
  metric = frechet.FrechetPixels(side=2)
  images = np.random.default_rng(0).random((30, 4, 4, 3))
  whole = metric.update(metric.empty(), images)
  pieces = metric.update(metric.update(metric.empty(), images[:7]), images[7:])
  assert metric.compare(whole, pieces) == pytest.approx(0, abs=1e-9)
  brighter = metric.update(metric.empty(), images + 0.5)
  # Only the mean moves: 12 features by 0.5 each.
  assert metric.compare(whole, brighter) == pytest.approx(12 * 0.25, rel=1e-6)


def test_labels_make_no_difference():
  metric = frechet.FrechetPixels(side=2)
  images = np.random.default_rng(1).random((9, 4, 4, 1))
  told = metric.update(metric.empty(), images, np.arange(9) % 3)
  untold = metric.update(metric.empty(), images, None)
  for a, b in zip(told, untold):
    np.testing.assert_array_equal(a, b)


def test_too_few_images():
  metric = frechet.FrechetPixels(side=2)
  one = metric.update(metric.empty(), np.zeros((1, 4, 4, 1)))
  with pytest.raises(ValueError, match='at least two'):
    metric.compare(one, one)
