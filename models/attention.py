"""Self-attention softmax(QKᵀ/√d)V (Vaswani et al. 2017) with heads in groups, and its cached step.

Grouped queries (Ainslie et al. 2023): H heads share G keys and values, H/G heads each. The one
kernel that makes all three is ordered by group, so that it can be split over devices between
groups: for each of G groups the columns are its H/G queries, its key, its value, d columns each.

The products and the softmax are in `models.kernels.attention`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.kernels.attention import Cache, attend, cached_attention, fused_attend, visible
from models.positions import Angles, rotate

Factory = Callable[..., nn.Module]


class Attention(nn.Module):
  """Multi-head self-attention with grouped queries: x [B, T, C] → [B, T, C].

  Attributes:
    width: C.
    heads: H, with d = C/H.
    groups: G, how many keys and values the H queries share.
    causal: whether a token sees only itself and those before it.
    fused: whether to use cuDNN's kernel, which needs half precision and an NVIDIA GPU; not used
      while weights are dropped, which it does not offer, nor in float32.
    dropout: fraction of the attention weights dropped in training.
    dense: (features, name=) -> the layer that makes queries, keys and values.
    output: (features, name=) -> the layer after attention.
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
    return self.read(x, angles, mask, lengths, train)[0]

  def read(
    self,
    x: jax.Array,
    angles: Angles,
    mask: jax.Array | None,
    lengths: jax.Array | None,
    train: bool,
  ) -> tuple[jax.Array, Cache]:
    """Attends within each row and returns its keys and values [B, G, T, d] too; as `__call__`."""
    query, key, value = self._split(x, angles)
    dropped = train and self.dropout > 0
    if self.fused and not dropped and query.dtype in (jnp.bfloat16, jnp.float16):
      y = fused_attend(query, key, value, mask, lengths, self.causal)
    else:
      batch, length = x.shape[:2]
      # Dropout applied to ones gives the factor that dropout multiplies the weights with.
      ones = jnp.ones((batch, self.heads, length, length), value.dtype)
      factor = self.drop(ones) if dropped else None
      y = attend(query, key, value, visible(length, self.causal, mask, lengths), factor)
    return self.out(y.reshape(x.shape)), Cache(key.swapaxes(1, 2), value.swapaxes(1, 2))

  def step(
    self, x: jax.Array, angles: Angles, cache: Cache, filled: jax.Array
  ) -> tuple[jax.Array, Cache]:
    """Attends from one new token of each row to those in the cache and to itself.

    Args:
      x: [B, C].
      angles: of each row's position, for `rotate`.
      cache: [B, G, S, d]; read, not changed.
      filled: bool [B, S], which entries of the cache hold earlier tokens of the row.

    Returns:
      [B, C], and the new key and value [B, G, 1, d], to be put into the cache.
    """
    query, key, value = self._split(x, angles)
    new = Cache(key[:, :, None], value[:, :, None])
    y = cached_attention(query, new, cache, filled)
    return self.out(y.reshape(x.shape)), new

  def _split(self, x: jax.Array, angles: Angles) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [..., C] → query [..., H, d], key and value [..., G, d]."""
    together, size = self.heads // self.groups, self.width // self.heads
    y = self.make(x).reshape(*x.shape[:-1], self.groups, together + 2, size)
    # Split and not indexed: gradients are put side by side again, not padded and added.
    query, key, value = jnp.split(y, (together, together + 1), axis=-2)
    query = query.reshape(*x.shape[:-1], self.heads, size)
    return rotate(query, angles), rotate(key[..., 0, :], angles), value[..., 0, :]
