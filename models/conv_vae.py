"""Convolutional encoder and decoder: 4 × 4 kernels with stride 2, one dense hidden layer.

Every width halves or doubles the side, so an image's sides must be multiples of 2 to the number of
widths: 28 × 28 and 32 × 32 with two of them.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from models.layers import MOST_LAYERS, Conv, ConvTranspose, Dense, require_widths
from options import option


class Encoder(nn.Module):
  """Convolutional encoder of a VAE: images `[B, H, W, C]` in [0, 1] to a Gaussian over latents.

  Attributes:
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Channels of the feature maps, largest map first.', low=1, longest=MOST_LAYERS
  )
  hidden: int = option('Units of the dense layer after them.', low=1)
  latent_size: int = option('Z, how many numbers a latent has.', low=1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, condition: jax.Array, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the log-variance, both float32 [B, Z].

    Args:
      images: [B, H, W, C].
      condition: [B, D], appended to the colours of every pixel; D is 0 where there is none.
      train: has no effect.
    """
    del train
    smallest_map(images.shape[1:], len(self.widths))
    x = beside_every_pixel(images, condition).astype(self.dtype)
    for i, channels in enumerate(self.widths):
      x = nn.relu(Conv(channels, (4, 4), strides=2, dtype=self.dtype, name=f'down_{i}')(x))
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(Dense(self.hidden, dtype=self.dtype, name='hidden')(x))
    x = Dense(2 * self.latent_size, dtype=self.dtype, name='output')(x).astype(jnp.float32)
    return x[:, : self.latent_size], x[:, self.latent_size :]


class Decoder(nn.Module):
  """Convolutional decoder of a VAE: latents `[B, Z]` to the parameters of a likelihood of images.

  Attributes:
    image_shape: (H, W, C), given by the data.
    outputs: numbers per pixel and colour, set by the objective.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Channels of the feature maps, smallest map first.', low=1, longest=MOST_LAYERS
  )
  hidden: int = option('Units of the dense layer before them.', low=1)
  image_shape: Sequence[int]
  outputs: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
    """Returns [B, H, W, C, outputs] float32.

    Args:
      latents: [B, Z].
      condition: [B, D], appended to the latents; D is 0 where there is none.
      train: has no effect.
    """
    del train
    require_widths(self.widths, 'config.modules.decoder')
    start = (*smallest_map(self.image_shape, len(self.widths)), self.widths[0])
    x = jnp.concatenate([latents, condition], axis=-1).astype(self.dtype)
    x = nn.relu(Dense(self.hidden, dtype=self.dtype, name='hidden')(x))
    x = nn.relu(Dense(math.prod(start), dtype=self.dtype, name='project')(x))
    x = x.reshape(-1, *start)
    last = self.image_shape[-1] * self.outputs
    for i, channels in enumerate((*self.widths[1:], last)):
      x = ConvTranspose(channels, (4, 4), strides=2, dtype=self.dtype, name=f'up_{i}')(x)
      x = nn.relu(x) if i < len(self.widths) - 1 else x
    return x.astype(jnp.float32).reshape(-1, *self.image_shape, self.outputs)


def smallest_map(image_shape: Sequence[int], halvings: int) -> tuple[int, int]:
  """Returns height and width after so many halvings.

  Raises:
    UserError: a side is not a multiple of 2 to that number.
  """
  height, width = image_shape[:2]
  factor = 2**halvings
  if height % factor or width % factor:
    raise UserError(
      f"{halvings} widths halve the side as often, so the image's {height} × {width} must be a "
      f'multiple of {factor}'
    )
  return height // factor, width // factor


def beside_every_pixel(images: jax.Array, condition: jax.Array) -> jax.Array:
  """Appends a condition [B, D] to every pixel of images [B, H, W, C] → [B, H, W, C + D]."""
  maps = jnp.broadcast_to(condition[:, None, None, :], (*images.shape[:3], condition.shape[-1]))
  return jnp.concatenate([images, maps], axis=-1)
