"""Speed is measured, call by call."""

import itertools
from types import SimpleNamespace

import pytest

from configs.defaults import speed
from engine.evaluators import speed as timing
from tests.engine.evaluators.fakes import KEY, NOTHING, evaluators_of


def test_latency_and_throughput_by_hand(monkeypatch):
  """A clock whose reading k is k² ms: from one to the next it takes 2k + 1."""
  reading = itertools.count()
  clock = SimpleNamespace(perf_counter=lambda: next(reading) ** 2 / 1000)
  monkeypatch.setattr(timing, 'time', clock)
  found, seen = evaluators_of(e=speed(calls=40)), []
  figures = found.evaluate('e', NOTHING, KEY, False, lambda done, _: seen.append(done)).figures
  figures = {name: figure.mean for name, figure in figures.items()}
  # Reading 0 is before the call that compiles. The calls of one example take 3, 7, … 159 ms, and
  # the four of the split of 50, which begin after reading 81, 165, 169, 173 and 177 ms.
  assert figures['e/latency_ms/p50'] == pytest.approx(81)
  assert figures['e/latency_ms/p95'] == pytest.approx(3 + 4 * 39 * 0.95)
  assert figures['e/latency_ms/p99'] == pytest.approx(3 + 4 * 39 * 0.99)
  assert figures['e/examples_per_second'] == pytest.approx(50 / 0.171)
  assert len(figures) == 4
  assert seen == [*range(1, 45)] and found.number('e') == 44
