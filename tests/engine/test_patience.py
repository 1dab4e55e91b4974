"""When a run has waited long enough."""

import pytest

from engine.patience import Patience


@pytest.mark.parametrize(
  ('mode', 'gain', 'values', 'waited'),
  [
    ('max', 0.0, [0.5, 0.6, 0.6, 0.59], [0, 0, 1, 2]),
    ('min', 0.0, [3.0, 2.0, 2.5, 1.0, 1.0], [0, 0, 1, 0, 1]),
    ('max', 0.1, [0.5, 0.55, 0.59, 0.61], [0, 1, 2, 0]),
    ('min', 0.1, [3.0, 2.95, 2.91, 2.89], [0, 1, 2, 0]),
    ('max', 0.0, [float('nan'), 0.5, float('nan'), 0.4], [1, 0, 1, 2]),
  ],
)
def test_evaluations_without_a_gain_are_counted(mode, gain, values, waited):
  state, seen = Patience(), []
  for step, value in enumerate(values):
    state = state.after(value, step, mode, gain)
    seen.append(state.waited)
  assert seen == waited
  best = (max if mode == 'max' else min)(v for v in values if v == v)
  assert state.best == pytest.approx(best, abs=gain)
  assert values[state.best_step] == state.best


def test_a_limit_of_0_waits_for_ever():
  waited = Patience(waited=3)
  assert waited.exhausted(3) and not waited.exhausted(4) and not waited.exhausted(0)
