"""How a transformer learns where its tokens stand: three kinds, each with the same two methods.

`add(x, places)` changes the embeddings x [B, T, C]; `angles(places)` is what queries and keys are
turned by, or None. `places` int32 are positions from 0 on: [T], [B, T], or one for x [B, C].
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.layers import lookup

Angles = tuple[jax.Array, jax.Array] | None  # cosine and sine [*places.shape, 1, head size / 2]

_LONGEST_PERIOD = 10_000.0


def restarting(segments: jax.Array) -> jax.Array:
  """Positions that start anew where the segment changes: int32 [B, T] → int32 [B, T]."""
  places = jnp.arange(segments.shape[1], dtype=jnp.int32)
  return places - jax.lax.cummax(jnp.where(changes(segments), places, 0), axis=1)


def changes(segments: jax.Array) -> jax.Array:
  """Whether each token is of another segment than the one before it: [B, T] → bool [B, T].

  The first of a row counts as a change.
  """
  before = segments[:, :-1] != segments[:, 1:]
  return jnp.pad(before, ((0, 0), (1, 0)), constant_values=True)


def _phases(places: jax.Array, size: int) -> jax.Array:
  """p / 10000^(2i/size) for i from 0 to below size/2: [*places.shape, size/2] float32."""
  rates = _LONGEST_PERIOD ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  return places[..., None].astype(jnp.float32) * rates


class Learned(nn.Module):
  """A vector per position, added to the embedding; parameter `embedding` [context, width].

  Attributes:
    context: most positions.
    width: C.
    head_size: not needed.
    embedding_init: of the vectors.
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
  `Learned`; `context` and `embedding_init` are not needed.
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
  """Queries and keys turned by an angle that grows with the position (Su et al. 2021, eq. 34).

  Attributes as of `Learned`; `head_size` alone is needed.
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
  """PE of `Sinusoidal`, float32 [*places.shape, width]."""
  phases = _phases(places, width + width % 2)
  waves = jnp.stack([jnp.sin(phases), jnp.cos(phases)], axis=-1)
  return waves.reshape(*places.shape, -1)[..., :width]


def rotate(x: jax.Array, angles: Angles) -> jax.Array:
  """Turns x [..., heads, head size], in its dtype; None leaves it as it is.

  Entry i is paired with entry i + d/2 (as in GPT-NeoX and Llama), not with its neighbour as in the
  paper: the same map for another order of the columns of the query and key kernels.
  """
  if angles is None:
    return x
  cosine, sine = angles
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1).astype(x.dtype)
