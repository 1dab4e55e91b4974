"""One training step, written once for every family: each player in turn, then the averages."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from engine.init_rules import IsFrozen, completed, nothing, trainable
from engine.optimizers import Optimizer
from engine.state import State, stream_key
from objectives.base import Aux, Batch, Objective, Player

Metrics = dict[str, jax.Array]
Step = Callable[[State, Batch], tuple[State, Metrics]]


def examples_per_step(objective: Objective, batch_size: int) -> int:
  """Examples a step consumes: every update of the player with most repeats sees its own."""
  return batch_size * max(player.repeats for player in objective.players)


def make_step(
  objective: Objective,
  optimizers: Mapping[str, Optimizer],
  ema: Mapping[str, float],
  accumulate: int,
  batch_size: int,
  frozen: IsFrozen = nothing,
) -> Step:
  """Returns the pure function `(state, batch) -> (state, metrics)`.

  The batch has `examples_per_step` rows. Metrics are float32 scalars `PLAYER/NAME`, averaged over
  a player's repeats: `loss`, `gradient_norm` of each module it moves, `learning_rate`, and what its
  loss reports. Parameters that are `frozen` stay as they are and have no gradient.
  """

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    step_key = jax.random.fold_in(state.key, state.step)
    metrics: Metrics = {}
    for player in objective.players:
      key = stream_key(step_key, player.name)
      state, reported = _play(player, optimizers[player.name], state, batch, key)
      metrics.update({f'{player.name}/{name}': value for name, value in reported.items()})
    averages = {
      module: _average(decay, state.step, state.ema[module], state.params[module])
      for module, decay in ema.items()
    }
    return state.replace(step=state.step + 1, ema=averages), metrics

  def _play(player: Player, optimizer, state: State, batch: Batch, key):
    slices = _cut(batch, next(iter(batch.values())).shape[0] // batch_size)

    def once(carry, repeat):
      params, mutable, opt_state = carry
      rows = jax.tree.map(lambda x: x[:, repeat], slices)
      rows['position'] = jnp.arange(batch_size)
      rows['step'] = jnp.full(batch_size, state.step)
      return _update(
        player,
        optimizer,
        accumulate,
        frozen,
        params,
        mutable,
        opt_state,
        rows,
        jax.random.fold_in(key, repeat),
      )

    carry = (state.params, state.mutable, state.opt_state[player.name])
    if player.repeats == 1:
      carry, reported = once(carry, 0)
    else:
      carry, reported = jax.lax.scan(once, carry, jnp.arange(player.repeats))
      reported = jax.tree.map(lambda x: x.mean(axis=0), reported)
    reported['learning_rate'] = optimizer.rate(state.step * player.repeats)
    params, mutable, opt_state = carry
    opt_states = {**state.opt_state, player.name: opt_state}
    return state.replace(params=params, mutable=mutable, opt_state=opt_states), reported

  return step


def _cut(batch: Batch, pieces: int) -> dict[str, jax.Array]:
  """Rows [pieces·B] to [B, pieces]: piece i is every pieces-th row.

  Strided, so that each device keeps the rows it has.
  """
  return {name: x.reshape(-1, pieces, *x.shape[1:]) for name, x in batch.items()}


def _update(
  player, optimizer, accumulate: int, frozen: IsFrozen, params, mutable, opt_state, batch, key
):
  """One update of one player: `((params, mutable, opt_state), metrics)`."""
  own = {module: params[module] for module in player.moves}
  moved = trainable(own, frozen)

  def loss(moved, mutable, batch):
    value, aux = player.loss({**params, **completed(moved, own)}, mutable, batch, key)
    return value, Aux({'loss': value, **aux.metrics}, {**mutable, **aux.mutable})

  gradient = jax.grad(loss, has_aux=True)
  gradients, aux = _accumulated(gradient, moved, mutable, batch, accumulate)
  gradients, norms = _with_norms(gradients)
  updates, opt_state = optimizer.update(gradients, opt_state, moved)
  moved = optax.apply_updates(moved, updates)
  params = {**params, **completed(moved, own)}
  return (params, aux.mutable, opt_state), {**aux.metrics, **norms}


def _with_norms(gradients: Mapping[str, Any]) -> tuple[Mapping[str, Any], Metrics]:
  """The gradients, and the norm of each module's."""
  leaves, structure = jax.tree.flatten(gradients)
  # Held together, each gradient is squared while it is in the cache, before the next one is made:
  # up to a tenth of a step on a CPU.
  held = [
    jax.lax.optimization_barrier((leaf, jnp.sum(jnp.square(leaf.astype(jnp.float32)))))
    for leaf in leaves
  ]
  gradients = jax.tree.unflatten(structure, [leaf for leaf, _ in held])
  squares = jax.tree.unflatten(structure, [square for _, square in held])
  norms = {
    f'gradient_norm/{module}' if len(squares) > 1 else 'gradient_norm': jnp.sqrt(
      sum(jax.tree.leaves(tree), jnp.float32(0))
    )
    for module, tree in squares.items()
  }
  return gradients, norms


def _accumulated(gradient: Callable, moved, mutable, batch: Batch, pieces: int) -> tuple[Any, Aux]:
  """Mean gradient and metrics over `pieces` microbatches, mutable collections passed along."""
  if pieces == 1:
    return gradient(moved, mutable, batch)
  cut = _cut(batch, pieces)

  def one(mutable, piece):
    gradients, aux = gradient(moved, mutable, jax.tree.map(lambda x: x[:, piece], cut))
    return aux.mutable, (gradients, aux.metrics)

  mutable, (gradients, metrics) = jax.lax.scan(one, mutable, jnp.arange(pieces))
  gradients, metrics = jax.tree.map(lambda x: x.mean(axis=0), (gradients, metrics))
  return gradients, Aux(metrics, mutable)


def _average(decay: float, step: jax.Array, average: Any, params: Any) -> Any:
  """decay·average + (1 − decay)·params, with decay at most (1 + t)/(10 + t).

  The ramp, TensorFlow's `num_updates` rule, keeps the random start out of short runs' averages.
  """
  t = step.astype(jnp.float32)
  rate = jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
