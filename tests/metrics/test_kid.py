"""The kernel distance is the unbiased one of all pairs."""

import numpy as np
import pytest

from metrics import kid
from metrics.kid import KID
from tests.metrics.sample_states import figures, normal

METRIC = KID(most=1000)


def test_by_hand():
  # k(x, y) = (xy + 1)³ in one dimension. x: 0, 1 and y: 1, 2, 3.
  # Different rows of x: k(0, 1) = 1. Of y: k(1, 2) = 27, k(1, 3) = 64, k(2, 3) = 343, mean 434 / 3.
  # One of each: 1 + 1 + 1 + 8 + 27 + 64 = 102 in 6 pairs.
  expected = 1 + 434 / 3 - 2 * 102 / 6
  assert figures(METRIC, [[0], [1]], [[1], [2], [3]]) == pytest.approx(expected, rel=1e-12)


def test_blocks_make_no_difference(monkeypatch):
  x, y = normal(0, 50), normal(1, 61)

  def kernel(a, b):
    return (a @ b.T / 8 + 1) ** 3

  of_x, of_y = kernel(x, x), kernel(y, y)
  expected = (
    (of_x.sum() - np.trace(of_x)) / (50 * 49)
    + (of_y.sum() - np.trace(of_y)) / (61 * 60)
    - 2 * kernel(x, y).mean()
  )
  for size in (1024, 7):
    monkeypatch.setattr(kid, '_BLOCK', size)
    assert kid.squared_discrepancy(x, y) == pytest.approx(expected, rel=1e-10)


def test_unbiased_for_few_samples():
  # 200 pairs of sets of 10 from one distribution: about 0, on both sides.
  found = np.array([figures(METRIC, normal(s, 10), normal(s + 1000, 10)) for s in range(200)])
  assert abs(found.mean()) < 3 * found.std() / np.sqrt(200)
  assert (found < 0).any() and (found > 0).any()


def test_another_distribution_is_farther():
  real = normal(0, 300)
  near, far = (figures(METRIC, real, normal(1, 300, mean=mean)) for mean in (0.1, 0.5))
  assert 0 < 5 * near < far


def test_as_torch_fidelity_computes_it():
  torch = pytest.importorskip('torch', reason='an extra, in requirements-extras.txt')
  pytest.importorskip('torch_fidelity', reason='an extra, in requirements-extras.txt')
  from torch_fidelity.metric_kid import kid_features_to_metric

  real, samples = normal(0, 150, 16).astype(np.float32), normal(1, 150, 16, 1.2, 0.3)
  samples = samples.astype(np.float32)
  tensors = [torch.from_numpy(each.astype(np.float64)) for each in (samples, real)]
  options = dict(kid_kernel='poly', kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None)
  options.update(kid_kernel_poly_coef0=1, rng_seed=0, verbose=False)
  name = 'kernel_inception_distance_mean'
  whole = kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=150, **options)[name]
  found = figures(METRIC, real, samples)
  assert found == pytest.approx(whole, rel=1e-5)
  # Random subsets estimate the same number, with noise.
  published = kid_features_to_metric(*tensors, kid_subsets=2000, kid_subset_size=50, **options)
  noise = published['kernel_inception_distance_std'] / np.sqrt(2000)
  assert abs(found - published[name]) < 4 * noise < 0.1 * found
