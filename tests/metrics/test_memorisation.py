"""A copier is caught, whole or in part; a model of the distribution is not."""

import numpy as np
import pytest

from metrics.memorisation import Memorisation
from tests.metrics.sample_states import figures, normal, state_of

METRIC = Memorisation(most=5000, quantile=0.02)
TRAIN, HELD_OUT = normal(0, 2000, 6), normal(1, 1000, 6)


def test_by_hand():
  # On a line. Training examples 0, 1, 10, 20; held-out ones are 3, 1, 5 and 2 away from them, so
  # the median distance is 2.5.
  held_out = [[4], [2], [15], [22]]
  samples = [[0.5], [3], [13], [17.6]]
  found = figures(Memorisation(4, 0.5), [[0], [1], [10], [20]], samples, held_out)
  # They are 0.5, 2, 3 and 2.4 away; the nearest ones are 0 or 1 (1 from the next), 1 (1), 10 (9),
  # 20 (10).
  assert found == dict(memorised=3 / 4, authenticity=1 / 4)


def test_of_the_distribution_itself():
  found = figures(METRIC, TRAIN, normal(2, 2000, 6), HELD_OUT)
  assert found['memorised'] == pytest.approx(0.02, abs=0.02)
  assert 0.4 < found['authenticity'] < 0.8


@pytest.mark.parametrize('noise', [0, 1e-3])
def test_a_copier(noise):
  copies = TRAIN[np.random.default_rng(3).integers(0, 2000, 1000)] + noise * normal(4, 1000, 6)
  assert figures(METRIC, TRAIN, copies, HELD_OUT) == dict(memorised=1, authenticity=0)


def test_every_tenth_sample_a_copy():
  samples = normal(2, 2000, 6)
  without = figures(METRIC, TRAIN, samples, HELD_OUT)
  samples[::10] = TRAIN[:200]
  found = figures(METRIC, TRAIN, samples, HELD_OUT)
  assert found['memorised'] == pytest.approx(without['memorised'] * 0.9 + 0.1, abs=0.005)
  assert found['authenticity'] == pytest.approx(without['authenticity'] * 0.9, abs=0.02)


def test_copies_of_held_out_examples_are_not_memorised():
  found = figures(METRIC, TRAIN, HELD_OUT, HELD_OUT)
  assert found['memorised'] == pytest.approx(0.02, abs=0.001)


def test_copies_count_where_held_out_examples_are_copies_as_well():
  held_out = np.concatenate([TRAIN[:100], HELD_OUT[:900]])
  copies = figures(METRIC, TRAIN, TRAIN[500:600], held_out)
  assert copies['memorised'] == 1
  assert figures(METRIC, TRAIN, normal(2, 500, 6), held_out)['memorised'] == 0


def test_as_all_pairs_say():
  train, samples, held_out = (normal(seed, 200, 3).astype(np.float32) for seed in (0, 1, 2))

  def apart(a, b):
    return np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1))

  limit = np.quantile(apart(held_out, train).min(axis=1), 0.1)
  away = apart(samples, train)
  own = np.sort(apart(train, train), axis=1)[:, 1]
  expected = dict(
    memorised=np.mean(away.min(axis=1) <= limit),
    authenticity=np.mean(away.min(axis=1) > own[away.argmin(axis=1)]),
  )
  found = figures(Memorisation(200, 0.1), train, samples, held_out)
  assert found == pytest.approx(expected, abs=1e-12)


def test_one_comparison_answers_about_several_states():
  samples = normal(2, 300, 6)
  samples[::3] = TRAIN[:100]
  train, held_out = state_of(METRIC, TRAIN), state_of(METRIC, HELD_OUT)
  compare = METRIC.comparison(train, held_out)
  parts = [range(100), range(50, 300), range(300), range(7, 8)]
  states = [state_of(METRIC, samples, [list(part)]) for part in parts]
  found = [compare(state) for state in states]
  assert found == [METRIC.compare(train, state, held_out) for state in states]
  assert len(set(found)) == len(found)


def test_features_that_are_not_finite():
  odd = normal(2, 10, 6)
  odd[3, 2] = np.inf
  for arrays in ((odd, TRAIN, HELD_OUT), (TRAIN, odd, HELD_OUT), (TRAIN, HELD_OUT, odd)):
    found = figures(METRIC, *arrays)
    assert all(np.isnan(value) for value in found.values())
