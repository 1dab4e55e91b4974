"""Encoder, decoder and codebook of a VQ-VAE (van den Oord et al. 2017, section 4.1).

4 × 4 kernels with stride 2, then residual blocks. Every width halves or doubles the side, so an
image's sides must be multiples of 2 to the number of widths.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from models.conv_vae import smallest_map
from models.layers import MOST_LAYERS, Conv, ConvTranspose, require_widths
from options import option


class Encoder(nn.Module):
  """Encoder of a VQ-VAE: images `[B, H, W, C]` in [0, 1] to features `[B, h, w, D]` float32.

  Attributes:
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Channels of the feature maps, largest map first.', low=1, longest=MOST_LAYERS
  )
  blocks: int = option('Residual blocks on the smallest map; 0 for none.', low=0, high=MOST_LAYERS)
  hidden: int = option('Channels inside a block.', low=1)
  code_size: int = option('D, how many numbers a code has.', low=1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    del train
    require_widths(self.widths, 'config.modules.encoder')
    smallest_map(images.shape[1:], len(self.widths))
    x = images.astype(self.dtype)
    for i, channels in enumerate(self.widths):
      x = nn.relu(Conv(channels, (4, 4), strides=2, dtype=self.dtype, name=f'down_{i}')(x))
    for i in range(self.blocks):
      x = Residual(self.hidden, self.dtype, name=f'block_{i}')(x)
    x = Conv(self.code_size, (1, 1), dtype=self.dtype, name='output')(nn.relu(x))
    return x.astype(jnp.float32)


class Decoder(nn.Module):
  """Decoder of a VQ-VAE: codes `[B, h, w, D]` to the parameters of a likelihood of images.

  These are `[B, H, W, C, outputs]`, float32.

  Attributes:
    image_shape: (H, W, C), given by the data.
    outputs: numbers per pixel and colour, set by the objective.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Channels of the feature maps, smallest map first.', low=1, longest=MOST_LAYERS
  )
  blocks: int = option('Residual blocks on the smallest map; 0 for none.', low=0, high=MOST_LAYERS)
  hidden: int = option('Channels inside a block.', low=1)
  image_shape: Sequence[int]
  outputs: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, codes: jax.Array, train: bool) -> jax.Array:
    del train
    require_widths(self.widths, 'config.modules.decoder')
    factor, sides = 2 ** len(self.widths), tuple(self.image_shape[:2])
    made = tuple(side * factor for side in codes.shape[1:3])
    if made != sides:
      raise UserError(
        f'{len(self.widths)} widths double the sides of the codes as often and make images of '
        f"{made[0]} × {made[1]}, where the data's have {sides[0]} × {sides[1]}; give as many as "
        'the encoder has'
      )
    x = codes.astype(self.dtype)
    x = Conv(self.widths[0], (3, 3), dtype=self.dtype, name='input')(x)
    for i in range(self.blocks):
      x = Residual(self.hidden, self.dtype, name=f'block_{i}')(x)
    last = self.image_shape[-1] * self.outputs
    for i, channels in enumerate((*self.widths[1:], last)):
      x = ConvTranspose(channels, (4, 4), strides=2, dtype=self.dtype, name=f'up_{i}')(nn.relu(x))
    return x.astype(jnp.float32).reshape(-1, *self.image_shape, self.outputs)


class Residual(nn.Module):
  """Residual block x + conv 1 × 1 (relu (conv 3 × 3 (relu x))) on maps `[B, h, w, C]`.

  Attributes:
    hidden: channels between the two convolutions.
    dtype: of the computation.
  """

  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = Conv(self.hidden, (3, 3), dtype=self.dtype, name='inside')(nn.relu(x))
    return x + Conv(x.shape[-1], (1, 1), dtype=self.dtype, name='output')(nn.relu(y))


class Codebook(nn.Module):
  """Codebook of a VQ-VAE: K codes that follow moving averages, without trained parameters.

  The collection `codebook` holds `embedding` [K, D], the codes, and the averages `counts` [K],
  `sums` [K, D], `positions` [h, w, K], all 0 at first; the objective updates them.
  """

  codes: int = option('K, how many codes there are.', low=2)

  @nn.compact
  def __call__(self, features: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Returns the collection; only the shape of the features [B, h, w, D] is read."""
    del train
    *place, size = features.shape[1:]
    shapes = {
      'counts': (self.codes,),
      'sums': (self.codes, size),
      'positions': (*place, self.codes),
    }
    averages = {
      name: self.variable('codebook', name, jnp.zeros, shape).value
      for name, shape in shapes.items()
    }
    embedding = self.variable(
      'codebook',
      'embedding',
      lambda: jax.random.normal(self.make_rng('params'), (self.codes, size)),
    )
    return {'embedding': embedding.value, **averages}
