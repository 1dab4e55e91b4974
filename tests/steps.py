"""Steps of an objective without a config, by plain descent at a rate of 0.1."""

import jax
import numpy as np

from configs.defaults import optimizer
from engine import gradients
from engine.build import to_plain
from engine.init_rules import nothing_frozen
from engine.optimizers import build_optimizers
from engine.state import State, init_state
from engine.step import TrainStep
from objectives.base import Batch, Objective


def train_step(objective: Objective, batch_size: int, accumulate: int = 1) -> TrainStep:
  names = {player.optimizer_name for player in objective.players}
  sections = {name: to_plain(optimizer('sgd', 0.1)) for name in names}
  optimizers = build_optimizers(sections, objective, 100)
  strategy = gradients.mean()
  return TrainStep(objective, optimizers, {}, strategy, nothing_frozen, batch_size, accumulate)


def first_state(step: TrainStep, batch: Batch, scale: float = 1.0) -> State:
  """The state at step 0, its parameters multiplied by `scale` so that everything has an effect."""

  def make() -> State:
    state = init_state(step.objective, step.optimizers, step.averages, 0, batch, step.frozen)
    return state.replace(params=jax.tree.map(lambda w: scale * w, state.params))

  return jax.jit(make)()


def assert_accumulation_changes_nothing(objective: Objective, batch: Batch) -> None:
  """One update of plain descent comes to the same whether the batch is whole or in halves."""
  rows = len(next(iter(batch.values())))
  whole, cut = (train_step(objective, rows, pieces) for pieces in (1, 2))
  state = first_state(whole, batch, scale=2.0)
  (after, metrics), (after_cut, metrics_cut) = (
    jax.jit(step.__call__)(state, batch) for step in (whole, cut)
  )
  for module, params in state.params.items():
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, after.params[module])
    assert max(jax.tree.leaves(moved)) > 1e-3, module
  difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, after_cut.params)
  assert max(jax.tree.leaves(difference)) < 1e-5, difference
  for name, mean in metrics.items():
    np.testing.assert_allclose(metrics_cut[name].value, mean.value, 1e-4, 1e-5, err_msg=name)
