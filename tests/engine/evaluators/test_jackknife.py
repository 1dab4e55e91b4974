"""Intervals of figures by leaving groups out."""

import numpy as np
import pytest

from engine.evaluators import jackknife


@pytest.mark.parametrize('number', [2, 3, 7])
def test_each_state_is_left_out_once(number):
  states = [(at,) for at in range(number)]
  merges = []

  def merge(a, b):
    merges.append(1)
    return a + b

  found = jackknife.leave_one_out(states, merge)
  assert found == [tuple(at for at in range(number) if at != out) for out in range(number)]
  assert len(merges) <= 3 * (number - 2)


def test_the_interval_of_a_mean_is_student_s():
  scipy_stats = pytest.importorskip('scipy.stats')
  values = np.random.default_rng(0).normal(3, 2, 20)
  without = np.array([np.delete(values, at).mean() for at in range(20)])
  expected = scipy_stats.t.interval(0.95, 19, values.mean(), scipy_stats.sem(values))
  assert jackknife.interval(values.mean(), without) == pytest.approx(expected, rel=1e-12)


def test_what_is_not_finite_has_no_finite_interval():
  low, high = jackknife.interval(float('nan'), np.array([1.0, float('nan')]))
  assert np.isnan(low) and np.isnan(high)
