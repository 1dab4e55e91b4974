"""Self-attention softmax(QKᵀ/√d)V (Vaswani et al. 2017) with heads in groups, and its cached step.

Grouped queries (Ainslie et al. 2023): H heads share G keys and values, H/G heads each. The one
kernel that makes all three is ordered by group, so that it can be split over devices between
groups: for each of G groups the columns are its H/G queries, its key, its value, d columns each.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.positions import Angles, rotate

Factory = Callable[..., nn.Module]


class Cache(NamedTuple):
  """Keys and values of earlier tokens, of one block [B, G, S, d] or of all [layers, B, G, S, d]."""

  key: jax.Array
  value: jax.Array


class Attention(nn.Module):
  """Tokens look at each other: x [B, T, C] → [B, T, C].

  Attributes:
    width: C.
    heads: H, with d = C/H.
    groups: G, keys and values.
    causal: whether a token sees only itself and those before it.
    fused: whether to use cuDNN's kernel: half precision on NVIDIA GPUs; not while weights are
      dropped, which it cannot do.
    dropout: share of the attention weights dropped in training.
    dense: (features, name=) -> the layer that makes queries, keys and values.
    output: likewise for the layer behind.
  """

  width: int
  heads: int
  groups: int
  causal: bool
  fused: bool
  dropout: float
  dense: Factory
  output: Factory

  def setup(self):
    size = self.width // self.heads
    self.make = self.dense(self.width + 2 * self.groups * size, name='query_key_value')
    self.out = self.output(self.width, name='output')
    self.drop = nn.Dropout(self.dropout, deterministic=False)

  def __call__(
    self,
    x: jax.Array,
    angles: Angles,
    mask: jax.Array | None,
    lengths: jax.Array | None,
    train: bool,
  ) -> jax.Array:
    """Attends within each row.

    Args:
      x: [B, T, C].
      angles: of the positions, for `rotate`.
      mask: bool, broadcastable to [B, 1, T, T]: whether a query (third axis) may see a key.
      lengths: int32 [B] from 1 on, how many keys of a row there are to see.
      train: whether weights are dropped.
    """
    query, key, value = self._split(x, angles)
    if train and self.dropout > 0:
      y = dropped_attention(query, key, value, self.causal, mask, lengths, self.drop)
    else:
      fused = self.fused and query.dtype in (jnp.bfloat16, jnp.float16)
      y = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        is_causal=self.causal,
        key_value_seq_lengths=lengths,
        implementation='cudnn' if fused else 'xla',
      )
    return self.out(y.reshape(x.shape))

  def step(
    self, x: jax.Array, angles: Angles, cache: Cache, position: jax.Array
  ) -> tuple[jax.Array, Cache]:
    """One token of each row, behind those in the cache.

    Args:
      x: [B, C].
      angles: of the position.
      cache: [B, G, S, d], of which the first `position` are filled; only read.
      position: int32 scalar.

    Returns:
      [B, C], and the new key and value [B, G, 1, d] that belong at `position`.
    """
    query, key, value = self._split(x, angles)
    new = Cache(key[:, :, None], value[:, :, None])
    y = cached_attention(query, new, cache, position)
    return self.out(y.reshape(x.shape)), new

  def _split(self, x: jax.Array, angles: Angles) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [..., C] → query [..., H, d], key and value [..., G, d]."""
    together, size = self.heads // self.groups, self.width // self.heads
    y = self.make(x).reshape(*x.shape[:-1], self.groups, together + 2, size)
    query = y[..., :together, :].reshape(*x.shape[:-1], self.heads, size)
    return rotate(query, angles), rotate(y[..., -2, :], angles), y[..., -1, :]


def dropped_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  causal: bool,
  mask: jax.Array | None,
  lengths: jax.Array | None,
  drop: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """`jax.nn.dot_product_attention` with `drop` on the weights, which that function lacks.

  Args:
    query: [B, T, H, d]; key, value: [B, S, G, d].
    causal, mask, lengths: what may be seen, as of `Attention`.
    drop: dropout of weights [B, G, H/G, T, S].

  Returns:
    [B, T, H, d] in the dtype of `value`.
  """
  grouped = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[-1])
  logits = jnp.einsum('btgrd,bsgd->bgrts', grouped, key, preferred_element_type=jnp.float32)
  seen = jnp.ones((1, 1, *logits.shape[-2:]), bool) if mask is None else mask
  if causal:
    seen &= jnp.tril(jnp.ones(logits.shape[-2:], bool))
  if lengths is not None:
    seen &= (jnp.arange(logits.shape[-1]) < lengths[:, None])[:, None, None]
  weights = _softmax(logits, query.shape[-1], seen[:, :, None])
  y = jnp.einsum('bgrts,bsgd->btgrd', drop(weights.astype(value.dtype)), value)
  return y.reshape(query.shape)


def cached_attention(query: jax.Array, new: Cache, cache: Cache, position: jax.Array) -> jax.Array:
  """Attention of one token to those in the cache and to itself.

  The cache is read as it is and the new entries are put in by the caller for all layers at once:
  written here, every layer would copy its part.

  Args:
    query: [B, H, d].
    new: key and value of the token itself, [B, G, 1, d].
    cache: [B, G, S, d], of which the first `position` are filled.
    position: int32 scalar.

  Returns:
    [B, H, d].
  """
  grouped = query.reshape(*new.key.shape[:2], -1, query.shape[-1])
  logits = [
    jnp.einsum('bgrd,bgsd->bgrs', grouped, key, preferred_element_type=jnp.float32)
    for key in (cache.key, new.key)
  ]
  logits = jnp.concatenate(logits, axis=-1)
  place = jnp.arange(logits.shape[-1])
  seen = (place < position) | (place == logits.shape[-1] - 1)
  weights = _softmax(logits, query.shape[-1], seen).astype(query.dtype)
  y = jnp.einsum('bgrs,bgsd->bgrd', weights[..., :-1], cache.value)
  return (y + weights[..., -1:] * new.value).reshape(query.shape)


def _softmax(logits: jax.Array, size: int, seen: jax.Array) -> jax.Array:
  """Softmax of logits/√size over the last axis, in float32; 0 where nothing may be seen.

  A row that sees nothing at all becomes uniform.
  """
  least = jnp.finfo(jnp.float32).min
  return jax.nn.softmax(jnp.where(seen, logits * size**-0.5, least), axis=-1)
