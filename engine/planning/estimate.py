"""What a training program holds, computes and sends, counted from its trace and its compilation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from data.feed import Feed
from engine.flops import count_flops, count_recomputed
from engine.planning.collectives import Collective, read_collectives
from engine.program import Traced, make_program
from engine.session import Session

# Of the parts of `Plan.memory`: what a step reads and does not write, and what the compiler adds.
DATA, WORK = 'data', 'activations, gradients, temporaries'


class Plan(NamedTuple):
  """One training program on one mesh.

  Attributes:
    mesh: devices along each axis.
    exact: whether it was compiled for these devices; else for as many CPU devices, and what follows
      from the compiled program is an estimate.
    memory: bytes on one device by what they are for, at the peak.
    flops: operations of one step of all lanes; see `engine.flops.count_flops`.
    recomputed: those of them that repeat the forward pass, to need less memory.
    collectives: what devices exchange in one step.
    precision: of the products, `config.train.precision`.
    steps: of the whole run.
    examples: of a step, of all lanes.
    tokens: of an example; 0 where examples are no text.
  """

  mesh: Mapping[str, int]
  exact: bool
  memory: Mapping[str, int]
  flops: int
  recomputed: int
  collectives: tuple[Collective, ...]
  precision: str
  steps: int
  examples: int
  tokens: int

  @property
  def devices(self) -> int:
    return int(np.prod([*self.mesh.values()]))

  @property
  def peak(self) -> int:
    """Bytes on one device at the peak."""
    return sum(self.memory.values())


def make_plan(session: Session, feed: Feed, traced: Traced, exact: bool = True) -> Plan:
  """Compiles the training program of a session without allocating its state.

  Args:
    session: its mesh may be of devices that are not here.
    feed: of its batches, or of their shapes.
    traced: the step.
    exact: whether the devices of the mesh are those that the plan is for.
  """
  _, taken = feed.take(0, session.train.dispatch)

  def scalar(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=session.replicated)

  program: Any = make_program(session, feed, traced).dispatch
  dispatch = program.trace(
    session.abstract,
    scalar((), np.bool_),
    taken,
    scalar((), np.int32),
    scalar((session.lanes.number,), np.bool_),
  )
  compiled = dispatch.lower().compile()
  memory = state_bytes(session)
  memory[DATA] = bytes_of(taken)
  needed = compiled.memory_analysis()
  if needed is not None:
    made = needed.output_size_in_bytes - needed.alias_size_in_bytes + needed.temp_size_in_bytes
    # Arrays on a TPU are padded; that belongs to what only the compiler knows.
    padding = max(0, needed.argument_size_in_bytes - sum(memory.values()))
    memory[WORK] = made + padding
  jaxpr = dispatch.jaxpr.jaxpr
  devices = session.mesh.size
  return Plan(
    dict(session.mesh.shape),
    exact,
    memory,
    count_flops(jaxpr),
    count_recomputed(jaxpr),
    tuple(read_collectives(compiled.as_text(), devices)) if devices > 1 else (),
    session.train.precision,
    session.train.steps,
    session.per_step * session.lanes.number,
    session.data.text.length if session.data.text else 0,
  )


def state_bytes(session: Session) -> dict[str, int]:
  """Returns the bytes on one device of the state of all lanes, by what they are for."""
  state = session.abstract
  return {
    'parameters': bytes_of(state.params),
    'optimizer state': bytes_of(state.opt_state),
    'averages (ema)': bytes_of(state.ema),
    'other variables': bytes_of((state.mutable, state.step, state.key)),
  }


def bytes_of(tree: Any) -> int:
  """Returns the bytes on one device of arrays, or of their shapes and shardings."""
  return sum(
    int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )
