"""Self-attention softmax(QKᵀ/√d)V (Vaswani et al. 2017) with heads in groups, and its cached step.

Grouped queries (Ainslie et al. 2023): H heads share G keys and values, H/G heads each. The one
kernel that makes all three is ordered by group, so that it can be split over devices between
groups: for each of G groups the columns are its H/G queries, its key, its value, d columns each.

`fused` attention is cuDNN's, through `jax.nn.dot_product_attention`. All other is `attend`, whose
gradient is written out: a training step of nanoGPT's model for a CPU takes 15 % less processor time
with it than with jax's own. As with every `custom_vjp`, forward mode is not available.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

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
    fused: whether to use cuDNN's kernel, which wants half precision on an NVIDIA GPU; not used
      while weights are dropped, which it does not offer, nor in float32.
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
    dropped = train and self.dropout > 0
    if self.fused and not dropped and query.dtype in (jnp.bfloat16, jnp.float16):
      y = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        is_causal=self.causal,
        key_value_seq_lengths=lengths,
        implementation='cudnn',
      )
    else:
      batch, length = x.shape[:2]
      # Dropout of ones is the factor that dropout puts on anything.
      ones = jnp.ones((batch, self.heads, length, length), value.dtype)
      factor = self.drop(ones) if dropped else None
      y = attend(query, key, value, visible(length, self.causal, mask, lengths), factor)
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
    # Split and not indexed: gradients are put side by side again, not padded and added.
    query, key, value = jnp.split(y, (together, together + 1), axis=-2)
    query = query.reshape(*x.shape[:-1], self.heads, size)
    return rotate(query, angles), rotate(key[..., 0, :], angles), value[..., 0, :]


def visible(
  length: int, causal: bool, mask: jax.Array | None, lengths: jax.Array | None
) -> jax.Array | None:
  """What may be seen as one mask, bool broadcastable to [B, 1, T, T]; None for everything."""
  seen = [] if mask is None else [mask]
  if causal:
    seen.append(jnp.tril(jnp.ones((1, 1, length, length), bool)))
  if lengths is not None:
    seen.append((jnp.arange(length) < lengths[:, None])[:, None, None])
  return functools.reduce(jnp.logical_and, seen) if seen else None


# --- whole rows -----------------------------------------------------------------------------------


@jax.custom_vjp
def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  seen: jax.Array | None,
  factor: jax.Array | None,
) -> jax.Array:
  """Attention of every token of a row.

  A query that sees nothing at all gets the mean of all values. Products are of the dtype of the
  inputs, the softmax is float32.

  Args:
    query: [B, T, H, d].
    key: [B, S, G, d].
    value: likewise.
    seen: bool, broadcastable to [B, 1, T, S]: which keys a query may see; None for all.
    factor: [B, H, T, S], what each weight is multiplied with behind the softmax (dropout); None for
      1. It gets no gradient.

  Returns:
    [B, T, H, d] in the dtype of `value`.
  """
  return _attend(query, key, value, seen, factor)[0]


def _attend(query, key, value, seen, factor):
  """`attend`, and what its gradient needs."""
  length, groups = query.shape[1], key.shape[2]
  query = _by_group(query * query.shape[-1] ** -0.5, groups)
  key, value = _by_group(key, groups), _by_group(value, groups)
  logits = _product(query, key, (3, 3))
  if seen is not None:
    # The heads of a group lie behind each other among the queries.
    heads = logits.reshape(*logits.shape[:2], -1, length, logits.shape[-1])
    least = jnp.finfo(jnp.float32).min
    logits = jnp.where(seen[:, :, None], heads, least).reshape(logits.shape)
  weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  factor = None if factor is None else factor.reshape(weights.shape)
  kept = _scaled(weights, factor)
  y = _product(kept, value, (3, 2)).astype(value.dtype)
  return _by_token(y, length), (query, key, value, weights, factor, y)


def _attend_backward(saved, gradient):
  """Dao et al. 2022, appendix B.2: Σₛ wₛ ∂wₛ is the product of y with its own gradient, which is
  shorter than a row of weights."""
  query, key, value, weights, factor, y = saved
  length, dtype = gradient.shape[1], query.dtype
  dy = _by_group(gradient, key.shape[1])
  dweights = _scaled(_product(dy, value, (3, 3)), factor)
  mean = (dy.astype(jnp.float32) * y).sum(axis=-1, keepdims=True)
  dlogits = (weights * (dweights - mean)).astype(dtype)
  dquery = _product(dlogits, key, (3, 2)) * query.shape[-1] ** -0.5
  dkey, dvalue = _product(dlogits, query, (2, 2)), _product(_scaled(weights, factor), dy, (2, 2))
  return (
    _by_token(dquery.astype(dtype), length),
    _by_token(dkey.astype(dtype), key.shape[2]),
    _by_token(dvalue.astype(dtype), key.shape[2]),
    None,
    None,
  )


attend.defvjp(_attend, _attend_backward)


def _scaled(x: jax.Array, factor: jax.Array | None) -> jax.Array:
  return x if factor is None else x * factor


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """Sums over one axis of each, for each row and group: float32 [B, G, …, …]."""
  dimensions = (((axes[0],), (axes[1],)), ((0, 1), (0, 1)))
  return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _by_group(x: jax.Array, groups: int) -> jax.Array:
  """[B, T, H, d] → [B, G, H/G·T, d], the layout that batched products take as it is."""
  batch, length, heads, size = x.shape
  x = x.reshape(batch, length, groups, heads // groups, size).transpose(0, 2, 3, 1, 4)
  return x.reshape(batch, groups, -1, size)


def _by_token(x: jax.Array, length: int) -> jax.Array:
  """[B, G, H/G·T, d] → [B, T, H, d]."""
  batch, groups, _, size = x.shape
  x = x.reshape(batch, groups, -1, length, size).transpose(0, 3, 1, 2, 4)
  return x.reshape(batch, length, -1, size)


# --- one token ------------------------------------------------------------------------------------


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
  grouped = query.reshape(*new.key.shape[:2], -1, query.shape[-1]) * query.shape[-1] ** -0.5
  logits = [_product(grouped, key, (3, 3)) for key in (cache.key, new.key)]
  logits = jnp.concatenate(logits, axis=-1)
  place = jnp.arange(logits.shape[-1])
  seen = (place < position) | (place == logits.shape[-1] - 1)
  weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1).astype(query.dtype)
  y = _product(weights[..., :-1], cache.value, (3, 2)).astype(query.dtype)
  return (y + weights[..., -1:] * new.value).reshape(query.shape)
