"""How the gradient of an update is made from a loss: the strategies of `config.train.gradient`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from engine.rows import cut_rows, take_piece
from objectives.base import Aux, Batch, Context, Mean, Mutable

Metrics = dict[str, Mean]
# (moved parameters, mutable, batch, context) -> (scalar, Aux)
Loss = Callable[[Any, Mutable, Batch, Context], tuple[jax.Array, Aux]]
# (loss, moved parameters, mutable, batch, context, microbatches) -> (gradients, metrics, mutable)
Strategy = Callable[[Loss, Any, Mutable, Batch, Context, int], tuple[Any, Metrics, Mutable]]


def mean() -> Strategy:
  """Returns the strategy that takes the gradient of the mean loss over the update's batch."""
  return mean_gradient


def mean_gradient(
  loss: Loss, moved: Any, mutable: Mutable, batch: Batch, context: Context, pieces: int
) -> tuple[Any, Metrics, Mutable]:
  """Returns the gradient of a loss, averaged over microbatches by the loss's own weight.

  With a weight that counts targets this is the whole batch's gradient, also where rows have
  different numbers of them. Mutable collections pass from each microbatch to the next.
  """
  gradient = jax.value_and_grad(loss, has_aux=True)
  if pieces == 1:
    (value, aux), gradients = gradient(moved, mutable, batch, context)
    return gradients, logged_metrics(value, aux), aux.mutable
  cut = cut_rows((dict(batch), context.keys), pieces)

  def part(mutable: Mutable, piece: jax.Array) -> tuple[_Sums, Mutable]:
    rows, keys = take_piece(cut, piece)
    rngs = {name: jax.random.fold_in(key, piece) for name, key in context.rngs.items()}
    (value, aux), gradients = gradient(moved, mutable, rows, Context(context.step, keys, rngs))
    return _sums(gradients, value, aux), aux.mutable

  def add(carry: tuple[_Sums, Mutable], piece: jax.Array):
    sums, mutable = carry
    more, mutable = part(mutable, piece)
    return (jax.tree.map(jnp.add, sums, more), mutable), None

  # A running sum: a stack of all microbatches' gradients would need the memory that is to be saved.
  shapes = jax.eval_shape(part, mutable, jnp.int32(0))[0]
  nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  (sums, mutable), _ = jax.lax.scan(add, (nothing, mutable), jnp.arange(pieces))
  gradients = jax.tree.map(lambda total: total / _positive(sums.weight), sums.gradients)
  return gradients, {name: _mean(total) for name, total in sums.metrics.items()}, mutable


def logged_metrics(loss: jax.Array, aux: Aux) -> Metrics:
  """Returns the loss and the metrics that it reports, each with its weight."""
  weight = jnp.float32(aux.weight)
  metrics = {'loss': loss, **aux.metrics}
  return {
    name: value if isinstance(value, Mean) else Mean(value, weight)
    for name, value in metrics.items()
  }


class _Sums(NamedTuple):
  """Sums over microbatches, each times its weight; of metrics (sum, sum of weights)."""

  gradients: Any
  weight: jax.Array
  metrics: dict[str, Mean]


def _sums(gradients: Any, loss: jax.Array, aux: Aux) -> _Sums:
  weight = jnp.float32(aux.weight)
  metrics = {
    name: Mean(_product(mean.value, mean.weight), jnp.float32(mean.weight))
    for name, mean in logged_metrics(loss, aux).items()
  }
  return _Sums(jax.tree.map(lambda g: weight * g, gradients), weight, metrics)


def _product(value: jax.Array, weight: jax.Array) -> jax.Array:
  """value · weight, where a weight of 0 hides a value that is not finite."""
  return jnp.where(weight > 0, value, 0) * jnp.float32(weight)


def _mean(total: Mean) -> Mean:
  return Mean(total.value / _positive(total.weight), total.weight)


def _positive(weight: jax.Array) -> jax.Array:
  """A divisor that makes 0/0 to 0: without any target there is no gradient."""
  return jnp.where(weight > 0, weight, 1)
