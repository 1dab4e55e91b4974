"""DCGAN (Radford et al. 2016): strided convolutions, batch normalisation, no pooling.

Two upsamplings and two downsamplings, so any image whose sides are multiples of four.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from models.layers import Conv, ConvTranspose, Dense

# Radford et al. 2016, section 4: weights from N(0, 0.02²).
_initial = nn.initializers.normal(0.02)


class Generator(nn.Module):
  """Latents `[B, Z]` to images `[B, *image_shape]` in [0, 1].

  Attributes:
    widths: channels of the feature maps, smallest map first; there is one doubling of the side per
      width, the last of them to the image.
    image_shape: (H, W, C), given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int]
  image_shape: Sequence[int]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents: jax.Array, train: bool) -> jax.Array:
    height, width, channels = self.image_shape
    factor = 2 ** len(self.widths)
    if height % factor or width % factor:
      raise UserError(
        f"{len(self.widths)} widths double the side as often, so the image's {height} × {width} "
        f'must be a multiple of {factor}'
      )
    start = (height // factor, width // factor, self.widths[0])
    x = latents.astype(self.dtype)
    x = Dense(
      math.prod(start), use_bias=False, kernel_init=_initial, dtype=self.dtype, name='project'
    )(x)
    x = x.reshape(-1, *start)
    for i, following in enumerate((*self.widths[1:], channels)):
      x = nn.relu(normalise(train, self.dtype, f'norm_{i}')(x))
      last = i == len(self.widths) - 1
      x = ConvTranspose(
        following,
        (4, 4),
        strides=(2, 2),
        use_bias=last,
        kernel_init=_initial,
        dtype=self.dtype,
        name=f'up_{i}',
      )(x)
    return nn.sigmoid(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """Images `[B, H, W, C]` in [0, 1] to logits `[B]` float32.

  Attributes:
    widths: channels of the feature maps, largest map first; each halves the side.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    x = (2 * images - 1).astype(self.dtype)
    for i, channels in enumerate(self.widths):
      x = Conv(
        channels,
        (4, 4),
        strides=(2, 2),
        use_bias=i == 0,
        kernel_init=_initial,
        dtype=self.dtype,
        name=f'down_{i}',
      )(x)
      if i:
        x = normalise(train, self.dtype, f'norm_{i}')(x)
      x = nn.leaky_relu(x, 0.2)
    x = x.reshape(x.shape[0], -1)
    return Dense(1, kernel_init=_initial, dtype=self.dtype, name='output')(x)[:, 0].astype(
      jnp.float32
    )


def normalise(train: bool, dtype: Any, name: str) -> nn.Module:
  """Batch normalisation: the batch's statistics in training, running averages otherwise."""
  return nn.BatchNorm(
    use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
  )
