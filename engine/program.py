"""The compiled training program: steps in a loop on the device, data included."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data.feed import Feed
from data.transforms import prepare
from engine import runtime
from engine.build import to_plain
from engine.session import Session
from engine.state import State, stream_key
from engine.step import make_step


class Program(NamedTuple):
  """What `make_program` returns.

  Attributes:
    dispatch: `(state, ok, taken, steps) -> (state, ok, rows)`, state and ok donated; `rows` is
      float32 [capacity, M], one row a step. It stops by itself after a step whose metrics are not
      all finite, and then `ok` is False; called with a False `ok` it does nothing.
    names: of the M columns; filled when `dispatch` is first traced.
    capacity: most steps of one dispatch.
  """

  dispatch: Callable
  names: list[str]
  capacity: int


def make_program(session: Session, feed: Feed) -> Program:
  """Compiles nothing yet: returns the jitted loop over steps.

  The trip count is an argument, so that one compiled program serves every length: how a run was
  cut into dispatches, or killed and resumed, cannot change what a step computes.
  """
  capacity, augment = session.train.dispatch, session.data.augment
  step = make_step(
    session.objective,
    session.optimizers,
    to_plain(session.config.ema),
    session.train.accumulate,
    session.data.batch_size,
    session.frozen,
  )
  names: list[str] = []

  @jax.jit  # Traced once, though it is used twice below.
  def one(state: State, taken: Any, i: jax.Array):
    batch = prepare(feed.batch(taken, i), stream_key(state.key, 'data'), augment)
    return step(state, batch)

  def dispatch(state: State, ok: jax.Array, taken: Any, steps: jax.Array):
    def body(carry):
      i, state, rows, _ = carry
      state, metrics = one(state, taken, i)
      row = jnp.stack([jnp.float32(metrics[name]) for name in names])
      return i + 1, state, rows.at[i].set(row), jnp.isfinite(row).all()

    names[:] = sorted(jax.eval_shape(one, state, taken, jnp.int32(0))[1])
    rows = jnp.zeros((capacity, len(names)), jnp.float32)
    carry = (jnp.int32(0), state, rows, ok)
    _, state, rows, ok = jax.lax.while_loop(lambda c: (c[0] < steps) & c[3], body, carry)
    return state, ok, rows

  jitted = jax.jit(
    dispatch,
    donate_argnums=(0, 1),
    out_shardings=(session.places, session.everywhere, session.everywhere),
    compiler_options=dict(runtime.compiler_options()),
  )
  return Program(jitted, names, capacity)
