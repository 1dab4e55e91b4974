"""The one pytree that a run is: what a checkpoint holds and a step returns."""

import zlib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from engine.init_rules import IsFrozen, nothing, trainable
from engine.optimizers import Optimizer
from errors import UserError
from objectives.base import Batch, Objective, Variables


@flax.struct.dataclass
class State:
  """Everything that training changes, and the key its randomness comes from.

  Attributes:
    step: int32 scalar, steps taken.
    params: `{module: parameters}` float32.
    mutable: `{module: {collection: values}}`, e.g. batch statistics.
    opt_state: `{player: optax state}`, nothing in it for a frozen parameter.
    ema: `{module: parameters}`, averages of the modules named in `config.ema`.
    key: typed PRNG key; never changes, every use folds in the step and a stream's name.
  """

  step: jax.Array
  params: Mapping[str, Any]
  mutable: Mapping[str, Any]
  opt_state: Mapping[str, Any]
  ema: Mapping[str, Any]
  key: jax.Array


def stream_key(key: jax.Array, name: str) -> jax.Array:
  """The key of the stream `name` ('init', 'data', a player…): unrelated for unrelated names."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def init_state(
  objective: Objective,
  optimizers: Mapping[str, Optimizer],
  ema: Mapping[str, float],
  seed: int,
  batch: Batch,
  frozen: IsFrozen = nothing,
) -> State:
  """Returns the state at step 0, a pure function of the seed.

  Raises:
    UserError: every parameter of a player is `frozen`.
  """
  key = jax.random.key(seed)
  variables = objective.init(stream_key(key, 'init'), batch)
  params = {module: tree['params'] for module, tree in variables.items()}
  mutable = {
    module: {name: values for name, values in tree.items() if name != 'params'}
    for module, tree in variables.items()
  }
  moved = {
    player.name: trainable({m: params[m] for m in player.moves}, frozen)
    for player in objective.players
  }
  for name, tree in moved.items():
    if not jax.tree.leaves(tree):
      raise UserError(f'config.init_rules freezes all that player "{name}" could train')
  return State(
    step=jnp.int32(0),
    params=params,
    mutable=mutable,
    opt_state={name: optimizers[name].init(tree) for name, tree in moved.items()},
    # A copy: a donated buffer must not appear twice in the state.
    ema={module: jax.tree.map(jnp.copy, params[module]) for module in ema},
    key=key,
  )


def variables_for_sampling(state: State) -> Variables:
  """`{module: variables}` with the averaged parameters wherever a module has an average."""
  return {
    module: {'params': state.ema.get(module, params), **state.mutable[module]}
    for module, params in state.params.items()
  }
