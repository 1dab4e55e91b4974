"""One training step, written once for every family: each player in turn, then the averages."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from engine.averages import Average
from engine.gradients import Metrics, Strategy
from engine.init_rules import IsFrozen, completed, trainable
from engine.optimizers import Optimizer
from engine.rows import cut_rows, take_piece
from engine.state import State
from objectives.base import (
  Aux,
  Batch,
  Context,
  Mean,
  Objective,
  Player,
  merge_variables,
  numbered_keys,
  stream_key,
)

# Parameters, mutable collections and one optimizer's state.
Carry = tuple[Any, Any, Any]
Update = Callable[[Carry], tuple[Carry, Metrics]]


def examples_per_step(objective: Objective, batch_size: int) -> int:
  """Examples a step consumes: every update of the player with most repeats sees its own."""
  return batch_size * max(player.repeats for player in objective.players)


# Compared by identity, so that a jitted step can be found again.
@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
  """The pure function `(state, batch) -> (state, metrics)` of one step.

  The batch has `examples_per_step` rows. Metrics are `Mean`s of float32 scalars `PLAYER/NAME`,
  averaged over a player's repeats: `loss`, `gradient_norm` of each module it moves,
  `learning_rate`, and what its loss reports; their weight is 0 where the player rested.

  Attributes:
    objective: whose players act.
    optimizers: by name.
    averages: by name.
    gradient: makes an update's gradient.
    frozen: whether the parameter at a path stays as it is, without a gradient.
    batch_size: examples of an update.
    accumulate: microbatches of an update.
    gather: `parameters -> parameters` as a loss uses them, see `engine.sharding.gather`.
  """

  objective: Objective
  optimizers: Mapping[str, Optimizer]
  averages: Mapping[str, Average]
  gradient: Strategy
  frozen: IsFrozen
  batch_size: int
  accumulate: int
  gather: Callable[[Any], Any] = lambda params: params

  def __call__(self, state: State, batch: Batch) -> tuple[State, Metrics]:
    step_key = jax.random.fold_in(state.key, state.step)
    examples = examples_per_step(self.objective, self.batch_size)
    slices = cut_rows(dict(batch), examples // self.batch_size)
    params, mutable, opt_state = state.params, state.mutable, dict(state.opt_state)
    metrics: Metrics = {}
    for player in self.objective.players:
      key = stream_key(step_key, player.name)
      update = functools.partial(self._update, player, state.step, key, slices)
      act = repeated(update, player.repeats) if player.repeats > 1 else update
      act = resting(act, player.every, state.step) if player.every > 1 else act
      carry, reported = act((params, mutable, opt_state[player.optimizer_name]))
      params, mutable, opt_state[player.optimizer_name] = carry
      metrics.update({f'{player.name}/{name}': value for name, value in reported.items()})
    newest = merge_variables(params, mutable)
    ema = {
      name: average.updated(state.ema[name], newest[average.module], state.step, examples)
      for name, average in self.averages.items()
    }
    step = state.step + 1
    return State(step, params, mutable, opt_state, ema, state.key), metrics

  def _update(
    self, player: Player, step: jax.Array, key: jax.Array, slices: Any, carry: Carry, repeat=0
  ) -> tuple[Carry, Metrics]:
    """One update of one player, on its slice number `repeat` of the batch."""
    params, mutable, opt_state = carry
    own = {module: params[module] for module in player.moves}
    moved = trainable(own, self.frozen)
    key = jax.random.fold_in(key, repeat)
    context = Context(
      step,
      numbered_keys(stream_key(key, 'examples'), jnp.arange(self.batch_size)),
      {stream: stream_key(key, stream) for stream in ('params', 'dropout')},
    )

    def loss(moved, mutable, batch, context):
      used = self.gather({**params, **completed(moved, own)})
      value, aux = player.loss(used, mutable, batch, context)
      return value, Aux(aux.metrics, {**mutable, **aux.mutable}, aux.weight)

    gradients, metrics, mutable = self.gradient(
      loss, moved, mutable, take_piece(slices, repeat), context, self.accumulate
    )
    gradients, norms = with_norms(gradients)
    optimizer = self.optimizers[player.optimizer_name]
    updates, opt_state = optimizer.update(gradients, opt_state, moved, step)
    params = {**params, **completed(optax.apply_updates(moved, updates), own)}
    more = {**norms, 'learning_rate': optimizer.rate(step)}
    metrics.update({name: Mean(value, jnp.float32(1)) for name, value in more.items()})
    return (params, mutable, opt_state), metrics


def repeated(update: Callable[..., tuple[Carry, Metrics]], repeats: int) -> Update:
  """Returns the function that calls `update(carry, repeat)` this often, its metrics averaged."""

  def act(carry: Carry) -> tuple[Carry, Metrics]:
    carry, metrics = jax.lax.scan(update, carry, jnp.arange(repeats))
    return carry, {name: _mean_of(means) for name, means in metrics.items()}

  return act


def resting(act: Update, every: int, step: jax.Array) -> Update:
  """Returns the function that acts on steps divisible by `every` and else reports weights of 0.

  The step is shared by all lanes, so that this stays a branch where lanes are mapped.
  """

  def rest(carry: Carry) -> tuple[Carry, Metrics]:
    shapes = jax.eval_shape(act, carry)[1]
    return carry, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

  return lambda carry: jax.lax.cond(step % every == 0, act, rest, carry)


def _mean_of(means: Mean) -> Mean:
  """The weighted mean of means [R]."""
  weight = means.weight.sum()
  return Mean((means.value * means.weight).sum() / jnp.where(weight > 0, weight, 1), weight)


def with_norms(gradients: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, jax.Array]]:
  """Returns the gradients, and the norm of each module's."""
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
