"""Pooling over the tokens of a row: every vector, the first, the last or the mean."""

import jax
import jax.numpy as jnp


def every(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """Returns x [B, T, C] unchanged: one vector per token."""
  del lengths
  return x


def first(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """Returns the first token's vector, x [B, T, C] → [B, C]."""
  del lengths
  return x[:, 0]


def last(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """Returns the last real token's vector, x [B, T, C] → [B, C]; of an empty row the first one's.

  `lengths` int32 [B] count the real tokens of each row; None for T.
  """
  if lengths is None:
    return x[:, -1]
  place = jnp.maximum(lengths - 1, 0)[:, None, None]
  return jnp.take_along_axis(x, place, axis=1)[:, 0]


def mean(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """Returns the mean over the real tokens, x [B, T, C] → [B, C]; of an empty row zeros.

  `lengths` int32 [B] count the real tokens of each row; None for T.
  """
  if lengths is None:
    return x.mean(axis=1)
  real = jnp.arange(x.shape[1]) < lengths[:, None]
  total = jnp.where(real[..., None], x, 0).sum(axis=1)
  return total / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)


POOLS = {'none': every, 'first': first, 'last': last, 'mean': mean}
