"""The compiled training program: steps in a loop on the device, data included."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data.feed import Feed
from data.transforms import prepare
from engine import runtime
from engine.flops import largest_product
from engine.gradients import Metrics
from engine.lanes import lane_axes
from engine.session import Session
from engine.state import State
from objectives.base import stream_key


class Program(NamedTuple):
  """The compiled loop over training steps, and the names of what it reports.

  Attributes:
    dispatch: `(state, ok, taken, steps, active) -> (state, ok, rows)`, state and ok donated; `rows`
      is float32 [lanes, capacity, M, 2], value and weight of each metric, one row a step. It stops
      by itself after a step whose metrics are not all finite, and then `ok` is False; called with a
      False `ok` it does nothing. A lane whose `active` [lanes] is False stays as it is.
    names: of the M metrics.
    capacity: most steps of one dispatch.
  """

  dispatch: Callable
  names: tuple[str, ...]
  capacity: int


class Traced(NamedTuple):
  """A training step that is traced.

  Attributes:
    step: `(state, batch) -> (state, metrics)`, jitted; with these shapes it is not traced again.
    names: of the metrics.
    largest: bytes of the largest matrix product or convolution, over all devices.
  """

  step: Callable[[State, Any], tuple[State, Metrics]]
  names: tuple[str, ...]
  largest: int


def trace_step(session: Session) -> Traced:
  """Traces the step of one lane; nothing is allocated or compiled.

  Raises:
    UserError: the modules do not fit the data, the objective or one another.
  """
  step = jax.jit(session.train_step().__call__)
  with session.module_errors():
    traced = step.trace(session.lane_abstract, _abstract_batch(session))
  metrics = traced.out_info[1]
  return Traced(step, tuple(sorted(metrics)), largest_product(traced.jaxpr.jaxpr))


def make_program(session: Session, feed: Feed, traced: Traced | None = None) -> Program:
  """Returns the jitted loop over steps; nothing is compiled yet.

  The trip count is an argument, so that one compiled program serves every length: how a run was
  cut into dispatches, or killed and resumed, cannot change what a step computes.

  Args:
    session: of the run.
    feed: of its batches.
    traced: the step; None to trace it now.
  """
  capacity = session.train.dispatch
  # Traced once: in the loop arguments have the same shardings.
  step, names, _ = traced or trace_step(session)
  loop = _Loop(session, feed, step, names, capacity)
  several = session.lanes.number > 1
  at_once = session.mesh.shape['lane'] > 1 or session.platform != 'cpu'
  dispatch = (loop.at_once if at_once else loop.in_turn) if several else loop.alone
  jitted = jax.jit(
    dispatch,
    donate_argnums=(0, 1),
    out_shardings=(session.state_shardings, session.replicated, session.replicated),
    compiler_options=runtime.compiler_options(
      session.platform, session.train.latency_hiding, session.train.determinism
    ),
  )
  return Program(jitted, names, capacity)


def _abstract_batch(session: Session) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of the batch of a step, as the objective sees it."""
  features = {**session.spec.features, 'index': ((), 'int32'), 'epoch': ((), 'uint32')}
  shapes = {
    name: jax.ShapeDtypeStruct((session.per_step, *shape), dtype)
    for name, (shape, dtype) in features.items()
  }
  prepared = jax.eval_shape(
    lambda batch: prepare(batch, jax.random.key(0), session.data.augment), shapes
  )
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=session.replicated), prepared
  )


class _Loop(NamedTuple):
  """The loop over steps, for one lane and for several."""

  session: Session
  feed: Feed
  step: Callable[[State, Any], tuple[State, Metrics]]
  names: tuple[str, ...]
  capacity: int

  def alone(self, state: State, ok: jax.Array, taken: Any, steps: jax.Array, active: jax.Array):
    """Up to `steps` steps of one lane; `active` is not looked at."""

    def body(carry):
      i, state, rows, _ = carry
      state, metrics = self.step(state, self._batch(state, taken, i))
      row = self._row(metrics)
      return i + 1, state, rows.at[0, i].set(row), jnp.isfinite(row).all()

    del active
    rows = jnp.zeros((1, self.capacity, len(self.names), 2), jnp.float32)
    carry = (jnp.int32(0), state, rows, ok)
    _, state, rows, ok = jax.lax.while_loop(lambda c: (c[0] < steps) & c[3], body, carry)
    return state, ok, rows

  def in_turn(self, state: State, ok: jax.Array, taken: Any, steps: jax.Array, active: jax.Array):
    """Steps of several lanes: all those of a dispatch of one lane before the next lane's.

    For a CPU, where batched products are slower than single ones. Switching lanes every step would
    copy the state every step.
    """
    first, inputs = state.step, self._lane_inputs()

    def one(lane: jax.Array, carry):
      held, all_ok, rows = carry
      mine, own, runs = jax.tree.map(lambda leaf: leaf[lane], (held, inputs, active))
      mine = mine.replace(step=first)
      mine, ok_after, row = self.alone(mine, ok, {**taken, **own}, jnp.where(runs, steps, 0), runs)
      held, rows = jax.tree.map(
        lambda leaf, new: leaf.at[lane].set(new), (held, rows), (mine.replace(step=None), row[0])
      )
      return held, all_ok & ok_after, rows

    # The state is carried and not mapped over: a map would write it into a second one.
    lanes = active.shape[0]
    rows = jnp.zeros((lanes, self.capacity, len(self.names), 2), jnp.float32)
    carry = state.replace(step=None), jnp.bool_(True), rows
    held, all_ok, rows = jax.lax.fori_loop(0, lanes, one, carry)
    return held.replace(step=first + jnp.where(ok, steps, 0)), all_ok, rows

  def at_once(self, state: State, ok: jax.Array, taken: Any, steps: jax.Array, active: jax.Array):
    """Steps of several lanes side by side, each step of all lanes in one batched program."""

    def one(state: State, own: Any, i: jax.Array):
      state, metrics = self.step(state, self._batch(state, {**taken, **own}, i))
      return state, self._row(metrics)

    axes = lane_axes(state)
    each = jax.vmap(one, (axes, 0, None), (axes, 0), spmd_axis_name='lane')

    def body(carry):
      i, state, rows, _ = carry
      state, row = each(state, self._lane_inputs(), i)
      row = jnp.where(active[:, None, None], row, 0)
      return i + 1, state, rows.at[:, i].set(row), jnp.isfinite(row).all()

    rows = jnp.zeros((active.shape[0], self.capacity, len(self.names), 2), jnp.float32)
    carry = (jnp.int32(0), state, rows, ok)
    _, after, rows, ok = jax.lax.while_loop(lambda c: (c[0] < steps) & c[3], body, carry)

    def kept(new: jax.Array, old: jax.Array) -> jax.Array:
      return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    # One choice per dispatch: one per step would hold two states at every step.
    held = jax.tree.map(kept, after.replace(step=None), state.replace(step=None))
    return held.replace(step=after.step), ok, rows

  def _batch(self, state: State, taken: Any, i: jax.Array) -> dict[str, jax.Array]:
    key = stream_key(state.key, 'data')
    return prepare(self.feed.batch(taken, i), key, self.session.data.augment)

  def _row(self, metrics: Metrics) -> jax.Array:
    """Value and weight of every metric, float32 [M, 2]."""
    return jnp.stack([jnp.stack([*map(jnp.float32, metrics[name])]) for name in self.names])

  def _lane_inputs(self) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in self.session.lanes.inputs.items()}
