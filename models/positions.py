"""Positional encodings of a transformer: three modules with the same two methods.

`add(x, places)` encodes positions in the embeddings x [B, T, C]; `angles(places)` returns the
angles that queries and keys are rotated by, or None. `places` int32 are positions from 0 on: [T],
[B, T], or one for x [B, C].
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.kernels.lookup import lookup

Angles = tuple[jax.Array, jax.Array] | None  # cosine and sine [*places.shape, 1, head size / 2]

_LONGEST_PERIOD = 10_000.0


def restarting(segments: jax.Array) -> jax.Array:
  """Returns positions that start anew where the segment changes: int32 [B, T] → int32 [B, T]."""
  places = jnp.arange(segments.shape[1], dtype=jnp.int32)
  return places - jax.lax.cummax(jnp.where(changes(segments), places, 0), axis=1)


def changes(segments: jax.Array) -> jax.Array:
  """Returns whether the segment changes before each token: int32 [B, T] → bool [B, T].

  The first token of a row counts as a change.
  """
  before = segments[:, :-1] != segments[:, 1:]
  return jnp.pad(before, ((0, 0), (1, 0)), constant_values=True)


def _phases(places: jax.Array, size: int) -> jax.Array:
  """p / 10000^(2i/size) for i from 0 to below size/2: [*places.shape, size/2] float32."""
  rates = _LONGEST_PERIOD ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  return places[..., None].astype(jnp.float32) * rates


class Learned(nn.Module):
  """One learned vector per position, added to the embedding; parameter `embedding` [context, C].

  Attributes:
    context: the largest number of positions.
    width: C.
    head_size: not used.
    embedding_init: initialiser of the vectors.
  """

  context: int
  width: int
  head_size: int
  embedding_init: nn.initializers.Initializer

  def setup(self):
    shape = (self.context, self.width)
    self.embedding = self.param('embedding', self.embedding_init, shape, jnp.float32)

  def add(self, x: jax.Array, places: jax.Array) -> jax.Array:
    return x + lookup(self.embedding, places)

  def angles(self, places: jax.Array) -> Angles:
    del places


class Sinusoidal(nn.Module):
  """Sines and cosines added to √width times the embedding (Vaswani et al. 2017, 3.4 and 3.5).

  PE(p, 2i) = sin(p / 10000^(2i/C)), PE(p, 2i+1) = cos(p / 10000^(2i/C)). Attributes as of
  `Learned`; `context` and `embedding_init` are not used.
  """

  context: int
  width: int
  head_size: int
  embedding_init: nn.initializers.Initializer

  def add(self, x: jax.Array, places: jax.Array) -> jax.Array:
    return x * self.width**0.5 + sinusoids(places, self.width)

  def angles(self, places: jax.Array) -> Angles:
    del places


class Rotary(nn.Module):
  """Rotates queries and keys by an angle that grows with the position (Su et al. 2021, eq. 34).

  Attributes as of `Learned`; only `head_size` is used.
  """

  context: int
  width: int
  head_size: int
  embedding_init: nn.initializers.Initializer

  def add(self, x: jax.Array, places: jax.Array) -> jax.Array:
    del places
    return x

  def angles(self, places: jax.Array) -> Angles:
    phases = _phases(places, self.head_size)[..., None, :]
    return jnp.cos(phases), jnp.sin(phases)


KINDS = {'learned': Learned, 'sinusoidal': Sinusoidal, 'rotary': Rotary}


def sinusoids(places: jax.Array, width: int) -> jax.Array:
  """Returns the encoding that `Sinusoidal` adds, float32 [*places.shape, width]."""
  phases = _phases(places, width + width % 2)
  waves = jnp.stack([jnp.sin(phases), jnp.cos(phases)], axis=-1)
  return waves.reshape(*places.shape, -1)[..., :width]


def rotate(x: jax.Array, angles: Angles) -> jax.Array:
  """Rotates x [..., heads, head size] by `angles`, in its dtype; None leaves it unchanged.

  Entry i is paired with entry i + d/2 (as in GPT-NeoX and Llama), not with its neighbour as in the
  paper: the same map for another order of the columns of the query and key kernels.
  """
  if angles is None:
    return x
  cosine, sine = angles
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1).astype(x.dtype)
