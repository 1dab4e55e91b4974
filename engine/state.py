"""The one pytree that a run is: the content of a checkpoint and the result of a step."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from engine.averages import Average, chosen_averages
from engine.init_rules import IsFrozen, trainable
from engine.optimizers import Optimizer
from errors import UserError
from objectives.base import Batch, Objective, Variables, merge_variables, stream_key


class State(flax.struct.PyTreeNode):
  """Everything that training changes, and the key its randomness comes from.

  With several lanes every leaf but `step` has a leading axis of lanes.

  Attributes:
    step: int32 scalar, steps taken; shared by all lanes.
    params: `{module: parameters}` float32.
    mutable: `{module: {collection: values}}`, e.g. batch statistics.
    opt_state: `{optimizer: optax state}`, nothing in it for a frozen parameter.
    ema: `{average: variables of its module}`, the parameters and the mutable collections.
    key: typed PRNG key; never changes, every use folds in the step and a stream's name.
  """

  step: jax.Array
  params: Mapping[str, Any]
  mutable: Mapping[str, Any]
  opt_state: Mapping[str, Any]
  ema: Mapping[str, Any]
  key: jax.Array


class Weights(flax.struct.PyTreeNode):
  """The part of a state that sampling and evaluating need.

  Attributes:
    params: as in `State`.
    mutable: as in `State`.
    ema: as in `State`.
  """

  params: Mapping[str, Any]
  mutable: Mapping[str, Any]
  ema: Mapping[str, Any]


def weights(state: State) -> Weights:
  """Returns the part of a state, or of its shapes or shardings, that is needed after training."""
  return Weights(state.params, state.mutable, state.ema)


def init_state(
  objective: Objective,
  optimizers: Mapping[str, Optimizer],
  averages: Mapping[str, Average],
  seed: int | jax.Array,
  batch: Batch,
  frozen: IsFrozen,
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
    player.optimizer_name: trainable({m: params[m] for m in player.moves}, frozen)
    for player in objective.players
  }
  for name, tree in moved.items():
    if not jax.tree.leaves(tree):
      raise UserError(
        f'config.init_from freezes all that optimizer "{name}" could train; let a rule of '
        'config.init_from.MODULE.rules load or skip some of it'
      )
  return State(
    step=jnp.int32(0),
    params=params,
    mutable=mutable,
    opt_state={name: optimizers[name].init(tree) for name, tree in moved.items()},
    ema=copied_averages(averages, params, mutable),
    key=key,
  )


def averaged_variables(
  held: State | Weights, averages: Mapping[str, Average], requested: str = ''
) -> Variables:
  """Returns `{module: variables}`, averaged where averages are requested.

  Args:
    held: of one lane.
    averages: of the run.
    requested: see `engine.averages.chosen_averages`.
  """
  chosen = chosen_averages(averages, requested)
  newest = merge_variables(held.params, held.mutable)
  return {m: held.ema[chosen[m]] if m in chosen else tree for m, tree in newest.items()}


def copied_averages(
  averages: Mapping[str, Average], params: Mapping[str, Any], mutable: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the averages of variables that have not moved yet, `{average: variables}`.

  They are copies, since a donated buffer must not appear twice in the state.
  """
  newest = merge_variables(params, mutable)
  return {n: jax.tree.map(jnp.copy, newest[average.module]) for n, average in averages.items()}
