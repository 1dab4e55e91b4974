"""Cross-entropy of one class out of many at every token; a target below 0 is none."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """−log softmax(l)ₜ = log Σⱼ exp lⱼ − lₜ, in nats (Goodfellow et al. 2016, section 6.2.2.3).

  Computed in float32, in the form that cannot overflow. To be differentiated once, and backward.

  Args:
    logits: [..., V] of any float.
    targets: int32 [...], the class t; below 0 there is none.

  Returns:
    float32 [...], 0 and without a gradient where there is no target.
  """
  return _forward(logits, targets)[0]


def _forward(logits: jax.Array, targets: jax.Array):
  wide = logits.astype(jnp.float32)
  normaliser = jax.nn.logsumexp(wide, axis=-1)
  chosen = jnp.take_along_axis(wide, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
  return jnp.where(targets >= 0, normaliser - chosen, 0), (logits, normaliser, targets)


def _backward(saved, slope: jax.Array):
  """softmax(l) less 1 at the target, in one pass over the logits: no scatter, no second sum."""
  logits, normaliser, targets = saved
  probability = jnp.exp(logits.astype(jnp.float32) - normaliser[..., None])
  at_target = jnp.arange(logits.shape[-1]) == targets[..., None]
  slope = jnp.where(targets >= 0, slope, 0)[..., None]
  return (slope * (probability - at_target)).astype(logits.dtype), None


cross_entropy.defvjp(_forward, _backward)


def mean(values: jax.Array, real: jax.Array, axis: int | None = None) -> jax.Array:
  """The mean of `values` where `real` holds, over `axis` or all of them; 0 where it holds nowhere.

  Args:
    values: float [...]; may be anything at the other places, NaN too.
    real: bool [...].
  """
  total = jnp.where(real, values, 0).sum(axis=axis)
  return total / jnp.maximum(real.sum(axis=axis), 1)
