"""The one place where the golden values touch the engine: how a config becomes steps and figures.

When an interface of the engine changes, this file follows, and the recorded values stay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data.spec import Spec
from data.transforms import OFF, prepare
from engine import session
from engine.metric_rows import weighted_means
from engine.program import make_program
from engine.state import State, averaged_variables
from objectives.base import Batch, Objective, numbered_keys, stream_key
from options import complete


class Training(NamedTuple):
  """A config made concrete on given batches, all of it compiled at first use.

  Attributes:
    objective: with its players.
    start: makes the state at step 0.
    advance: `(state, first, number) -> (state, metrics)`: takes `number` steps on the batches from
      `first` on and gives the metrics of each, in order; the old state is gone.
    evaluate: `(state, batch) -> {NAME: float32 [B]}`, the objective's figures of each example.
    sample: `(state, num) -> array`; None where the objective samples nothing.
  """

  objective: Objective
  start: Callable[[], State]
  advance: Callable[[State, int, int], tuple[State, list[dict[str, float]]]]
  evaluate: Callable[[State, Batch], dict[str, np.ndarray]]
  sample: Callable[[State, int], jax.Array] | None


class _Given:
  """A feed of batches that lie ready: `taken` is (the first step, {name: [steps, B, …]})."""

  def batch(self, taken: Any, i: jax.Array) -> dict[str, jax.Array]:
    first, batches = taken
    return {name: rows[first + i] for name, rows in batches.items()}


def open_training(
  config: ConfigDict, spec: Spec, batches: Callable[[int], list[dict[str, np.ndarray]]]
) -> Training:
  """Makes `config` concrete on data that look like `spec`.

  Args:
    config: the experiment.
    spec: of the data.
    batches: gives, for the number of examples in a step, the batch of every step.
  """
  opened = session.open_session(config, spec)
  program = make_program(opened, _Given())
  given = jax.tree.map(lambda *rows: jnp.stack(rows), *batches(opened.per_step))

  def advance(state: State, first: int, number: int):
    taken = jnp.int32(first), given
    count, active = jnp.int32(number), jnp.ones(1, bool)
    state, _, rows = program.dispatch(state, jnp.bool_(True), taken, count, active)
    rows = np.asarray(rows)
    each = [weighted_means(rows[:, step : step + 1], program.names) for step in range(number)]
    return state, [lanes[0] for lanes in each]

  @jax.jit
  def evaluate(state: State, batch: Batch):
    keys = numbered_keys(stream_key(state.key, 'evaluate'), batch['index'])
    batch = prepare(batch, state.key, OFF)
    variables = averaged_variables(state, opened.averages)
    columns = opened.objective.evaluate(variables, batch, keys)
    return {name: column for name, column in columns.items() if _is_figure(column)}

  def sample(state: State, num: int):
    numbers = jnp.arange(num)
    keys = numbered_keys(stream_key(state.key, 'sample'), numbers)
    options = complete(sampler.options, {}, 'the sampler')
    return sampler.sample(averaged_variables(state, opened.averages), keys, numbers, **options)

  sampler = opened.objective.sampler
  samples = sampler is not None
  drawn = jax.jit(sample, static_argnums=1) if samples else None
  return Training(opened.objective, opened.init, advance, evaluate, drawn)


def with_other_noise(state: State) -> State:
  """The state with another key: parameters as they are, all that is drawn from now on another."""
  return state.replace(key=jax.random.key(1_000_003))


@contextmanager
def one_key() -> Iterator[None]:
  """Within it all keys are one: whatever is traced draws the same noise, from any stream.

  What training comes to then says whether it computes what it did, even after a change of the
  streams that keys are folded from.
  """
  before = jax.random.fold_in, jax.random.split

  def fold_in(key: jax.Array, data: Any) -> jax.Array:
    del key, data
    return jax.random.key(14)

  def split(key: jax.Array, num: int | tuple[int, ...] = 2) -> jax.Array:
    return jnp.broadcast_to(fold_in(key, num), num)

  # Steps of equal objectives share a trace, and a trace keeps the keys that it was made with.
  jax.clear_caches()
  jax.random.fold_in, jax.random.split = fold_in, split
  try:
    yield
  finally:
    jax.random.fold_in, jax.random.split = before
    jax.clear_caches()


def _is_figure(column: Any) -> bool:
  return column.ndim == 1 and jnp.issubdtype(column.dtype, jnp.floating)
