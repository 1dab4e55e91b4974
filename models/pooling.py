"""From one vector per token to what a head reads: all of them, or one of the whole row."""

import jax
import jax.numpy as jnp


def every(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """x [B, T, C] as it is."""
  del lengths
  return x


def first(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """x [B, T, C] → [B, C], the first token's."""
  del lengths
  return x[:, 0]


def last(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """x [B, T, C], lengths int32 [B] or None for T → [B, C], the last real token's (0: the first)."""
  if lengths is None:
    return x[:, -1]
  place = jnp.maximum(lengths - 1, 0)[:, None, None]
  return jnp.take_along_axis(x, place, axis=1)[:, 0]


def mean(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """x [B, T, C], lengths int32 [B] or None for T → [B, C], over the real tokens (0: zeros)."""
  if lengths is None:
    return x.mean(axis=1)
  real = jnp.arange(x.shape[1]) < lengths[:, None]
  total = jnp.where(real[..., None], x, 0).sum(axis=1)
  return total / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)


POOLS = {'none': every, 'first': first, 'last': last, 'mean': mean}
