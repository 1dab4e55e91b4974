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
  wide = logits.astype(jnp.float32)
  normaliser = jax.nn.logsumexp(wide, axis=-1)
  chosen = jnp.take_along_axis(wide, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
  return jnp.where(targets >= 0, normaliser - chosen, 0), normaliser


@cross_entropy.defjvp
def _differentiate(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]):
  """Uses the gradient softmax(l), less 1 at the target.

  Its transpose is one pass over the logits; autodiff would add a scatter and a second sum.
  """
  (logits, targets), (moved, _) = primals, tangents
  losses, normaliser = _with_normaliser(logits, targets)
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
