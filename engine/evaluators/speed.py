"""Latency and throughput of the objective's `evaluate`."""

import dataclasses
import time
from collections.abc import Iterator
from typing import ClassVar

import jax
import numpy as np

from engine.evaluators.base import Figure, Progress, Results
from engine.evaluators.batches import Function, round_up
from engine.evaluators.examples import OverSplit
from objectives.base import Variables
from options import option

_FEWEST_BATCHES = 3
_PERCENTILES = (50, 95, 99)


@dataclasses.dataclass(eq=False)
class Speed(OverSplit):
  """Wall time of `evaluate` with its batch on the devices already, after a call that compiles.

  Figures are `latency_ms/p50`, `/p95` and `/p99` of one example (on a mesh, of one per device), and
  `examples_per_second` of whole batches.
  """

  repeatable: ClassVar[bool] = False

  calls: int = option(
    'Timed calls with one example; a tenth as many with whole batches.', low=1, high=1_000_000
  )

  @property
  def function(self) -> Function:
    return self.session.objective.evaluate

  @property
  def number(self) -> int:
    return self.calls + self._batches

  @property
  def figure_names(self) -> tuple[str, ...]:
    return (*(f'latency_ms/p{p}' for p in _PERCENTILES), 'examples_per_second')

  @property
  def _batches(self) -> int:
    return max(_FEWEST_BATCHES, self.calls // 10)

  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None
  ) -> Results:
    del details
    plan = [(round_up(1, self.session.mesh), self.calls), (self._size, self._batches)]
    seconds: list[list[float]] = [[], []]
    for taken, (rows, calls) in zip(seconds, plan):
      for one in self._seconds(variables, key, rows, calls):
        taken.append(one)
        if progress is not None:
          progress(sum(map(len, seconds)), {})
    figures = {f'latency_ms/p{p}': 1000 * float(np.percentile(seconds[0], p)) for p in _PERCENTILES}
    figures['examples_per_second'] = self._size / float(np.median(seconds[1]))
    return Results({name: Figure(value) for name, value in figures.items()})

  def _seconds(
    self, variables: Variables, key: jax.Array, rows: int, calls: int
  ) -> Iterator[float]:
    """The wall time of each call with a batch of `rows`, but for the one that compiles."""
    batch = self._compiled.first(self._split, rows)
    for call in range(calls + 1):
      started = time.perf_counter()
      jax.block_until_ready(self._compiled.call(variables, key, batch))
      if call:
        yield time.perf_counter() - started
