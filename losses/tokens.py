"""Losses per token: cross-entropy, and the mean over tokens that are not padding."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the cross-entropy −log softmax(l)ₜ = log Σⱼ exp lⱼ − lₜ of each target t, in nats.

  Goodfellow et al. 2016, section 6.2.2.3, computed in float32, in the form that cannot overflow.

  Args:
    logits: [..., V] of any float.
    targets: int32 [...], the class t; below 0 there is no target.

  Returns:
    float32 [...], 0 and without a gradient where there is no target.
  """
  return _with_normaliser(logits, targets)[0]


def _with_normaliser(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns (the cross-entropy, log Σⱼ exp lⱼ), both float32 [...]."""
  # The largest and the chosen logit are looked up in the logits as they are. Only the sum reads
  # them as float32, so that a compiler need not keep such a copy of them for several readers.
  largest = jax.lax.stop_gradient(logits.max(axis=-1)).astype(jnp.float32)
  largest = jnp.where(jnp.isfinite(largest), largest, 0)
  total = jnp.exp(logits.astype(jnp.float32) - largest[..., None]).sum(axis=-1)
  normaliser = jnp.log(total) + largest
  chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
  return jnp.where(targets >= 0, normaliser - chosen.astype(jnp.float32), 0), normaliser


@cross_entropy.defjvp
def _differentiate(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]):
  """Uses the gradient softmax(l), less 1 at the target.

  Its transpose is one pass over the logits; autodiff would add a scatter and a second sum.
  """
  (logits, targets), (moved, _) = primals, tangents
  losses, normaliser = _with_normaliser(logits, targets)
  if logits.dtype != jnp.float32:
    # Made float32 a second time here, and not kept since the sum: see `_with_normaliser`.
    logits = jax.lax.optimization_barrier(logits)
  probability = jnp.exp(logits.astype(jnp.float32) - normaliser[..., None])
  at_target = jnp.arange(logits.shape[-1]) == targets[..., None]
  slopes = ((probability - at_target) * moved.astype(jnp.float32)).sum(axis=-1)
  return losses, jnp.where(targets >= 0, slopes, 0)


def mean(values: jax.Array, real: jax.Array, axis: int | None = None) -> jax.Array:
  """Returns the mean of the `values` that are `real`, over `axis` or all axes; 0 if none is real.

  Args:
    values: float [...]; those that are not real may be NaN.
    real: bool [...], False for padding.
  """
  total = jnp.where(real, values, 0).sum(axis=axis)
  return total / jnp.maximum(real.sum(axis=axis), 1)
