"""Precision and recall tell what a generator does wrong, and not the other way round."""

import numpy as np
import pytest

from metrics.prdc import PRDC
from tests.metrics.sample_states import figures, normal

METRIC = PRDC(most=2000, k=3)


def by_all_pairs(real, samples, k):
  """The four figures from whole matrices of distances, in the words of the papers."""

  def apart(a, b):
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

  real_radius = np.sort(apart(real, real), axis=1)[:, k]
  sample_radius = np.sort(apart(samples, samples), axis=1)[:, k]
  between = apart(real, samples)
  in_real_ball = between <= real_radius[:, None]
  return dict(
    precision=np.mean(in_real_ball.any(axis=0)),
    recall=np.mean((between <= sample_radius[None]).any(axis=1)),
    density=in_real_ball.sum() / (k * len(samples)),
    coverage=np.mean(between.min(axis=1) <= real_radius),
  )


def test_by_hand():
  # On a line, k = 1. Real examples 0, 1, 3, 10 have the radii 1, 1, 2, 7; samples 1.5, 2, 30 have
  # 0.5, 0.5, 28. Sample 1.5 is in the balls of 1 and 3, 2 in those of 1 and 3, 30 in none; 10's
  # ball begins at 3. Real example 1 is in the ball of 1.5, 3 and 10 are in that of 30, from 2 on.
  found = figures(PRDC(most=9, k=1), [[0], [1], [3], [10]], [[1.5], [2], [30]])
  assert found == pytest.approx(dict(precision=2 / 3, recall=3 / 4, density=4 / 3, coverage=2 / 4))


@pytest.mark.parametrize('k', [1, 3, 5])
def test_as_all_pairs_say(k):
  real, samples = normal(0, 150, 4).astype(np.float32), normal(1, 120, 4, 0.9, 0.3)
  samples = samples.astype(np.float32)
  expected = by_all_pairs(np.float64(real), np.float64(samples), k)
  assert figures(PRDC(most=2000, k=k), real, samples) == pytest.approx(expected, abs=1e-12)
  assert 0.3 < expected['precision'] < 0.99 and 0.3 < expected['recall'] < 0.99


def test_of_the_same_distribution_all_are_high():
  found = figures(PRDC(most=2000, k=5), normal(0, 1000, 4), normal(1, 1000, 4))
  assert found['precision'] > 0.9 and found['recall'] > 0.9
  # Naeem et al. 2020: of equal distributions density is 1, and coverage 1 − 2⁻ᵏ.
  assert found['density'] == pytest.approx(1, abs=0.05)
  assert found['coverage'] == pytest.approx(1 - 2**-5, abs=0.02)


@pytest.mark.parametrize('spread', [0, 0.01])
def test_a_collapsed_generator_has_precision_but_no_recall(spread):
  real = normal(0, 500)
  samples = real[np.linalg.norm(real, axis=1).argmin()] + spread * normal(1, 500)
  found = figures(METRIC, real, samples)
  assert found['precision'] == 1 and found['density'] > 1
  assert found['recall'] < 0.02 and found['coverage'] < 0.1


def test_a_generator_of_noise_has_recall_but_no_precision():
  found = figures(METRIC, normal(0, 500), normal(1, 500, scale=10))
  assert found['precision'] < 0.02 and found['density'] < 0.02
  assert found['recall'] > 0.98 and found['coverage'] < 0.02


def test_a_generator_of_something_else_has_neither():
  found = figures(METRIC, normal(0, 500), normal(1, 500, mean=20))
  assert found == dict(precision=0, recall=0, density=0, coverage=0)


def test_a_class_left_out_costs_its_share_of_recall():
  where = np.where(np.arange(600) % 3 == 0, 20, 0)[:, None]
  real, samples = normal(0, 600, 3) + where, normal(1, 600, 3)
  found = figures(METRIC, real, samples)
  assert found['precision'] > 0.9
  assert 0.5 < found['recall'] < 2 / 3 and 0.5 < found['coverage'] < 2 / 3
  # And an invented one its share of precision.
  found = figures(METRIC, samples, real)
  assert found['recall'] > 0.9 and 0.5 < found['precision'] < 2 / 3


def test_copies_of_the_real_examples_are_ties_whatever_the_blocks(monkeypatch):
  from metrics import distances

  real = normal(0, 400, 300, mean=50.0)
  for size in (2**23, 900):
    monkeypatch.setattr(distances, '_BLOCK', size)
    found = figures(METRIC, real, real[::-1])
    # Each of k balls besides its own holds a copy at its rim, on average.
    assert found == dict(precision=1, recall=1, density=4 / 3, coverage=1)


def test_as_torch_fidelity_computes_it():
  torch = pytest.importorskip('torch', reason='an extra, in requirements-extras.txt')
  pytest.importorskip('torch_fidelity', reason='an extra, in requirements-extras.txt')
  from torch_fidelity.metric_prc import prc_features_to_metric

  real, samples = normal(0, 400, 6).astype(np.float32), normal(1, 300, 6, 0.8, 0.3)
  samples = samples.astype(np.float32)
  tensors = [torch.from_numpy(each.astype(np.float64)) for each in (samples, real)]
  options = dict(prc_batch_size=10_000, save_cpu_ram=False, verbose=False)
  expected = prc_features_to_metric(*tensors, prc_neighborhood=3, **options)
  found = figures(METRIC, real, samples)
  for name in ('precision', 'recall'):
    assert found[name] == pytest.approx(expected[name], rel=1e-5) and 0.2 < found[name] < 0.98
