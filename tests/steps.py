"""Steps of an objective without a config: contexts of losses, plain descent, `TrainStep`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from configs.defaults import optimizer
from engine import gradients
from engine.averages import Average
from engine.build import to_plain
from engine.init_rules import nothing_frozen
from engine.optimizers import Optimizer, make_optimizer
from engine.state import State, init_state
from engine.step import TrainStep
from objectives.base import Batch, Context, Mutable, Objective, Params, Variables, numbered_keys


def keys_of(rows: int, seed: int = 0) -> jax.Array:
  """Keys [rows] of examples."""
  return numbered_keys(jax.random.key(seed), jnp.arange(rows))


def context(rows: int, seed: int = 0, step: int = 0) -> Context:
  """The context of a loss of `rows` examples."""
  streams = {name: jax.random.key(seed + i) for i, name in enumerate(('params', 'dropout'), 100)}
  return Context(jnp.int32(step), keys_of(rows, seed), streams)


def split_variables(variables: Variables) -> tuple[Params, Mutable]:
  """The parameters of every module and its other collections."""
  params = {module: tree['params'] for module, tree in variables.items()}
  mutable = {
    module: {name: values for name, values in tree.items() if name != 'params'}
    for module, tree in variables.items()
  }
  return params, mutable


def sgd(rate: float, **options: Any) -> Optimizer:
  section = {**to_plain(optimizer('sgd', rate)), **options}
  return make_optimizer(100, 'config.optimizer.x', **section)


def train_step(
  objective: Objective,
  batch_size: int,
  accumulate: int = 1,
  averages: Mapping[str, Average] = {},
  optimizers: Mapping[str, Optimizer] = {},
) -> TrainStep:
  """The step, with plain descent at a rate of 0.1 where there is no other optimizer."""
  plain = {player.optimizer_name: sgd(0.1) for player in objective.players}
  return TrainStep(
    objective,
    {**plain, **optimizers},
    averages,
    gradients.mean(),
    nothing_frozen,
    batch_size,
    accumulate,
  )


def first_state(step: TrainStep, batch: Batch, scale: float = 1.0) -> State:
  """The state at step 0, its parameters multiplied by `scale` so that everything has an effect."""

  def make() -> State:
    state = init_state(step.objective, step.optimizers, step.averages, 0, batch, step.frozen)
    return state.replace(params=jax.tree.map(lambda w: scale * w, state.params))

  return jax.jit(make)()
