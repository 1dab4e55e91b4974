"""DCGAN (Radford et al. 2016): strided convolutions, batch normalisation, no pooling.

Every width doubles or halves the side, so the sides of generated images must be multiples of 2 to
the number of widths. With labels, the generator's batch norm is conditional and the discriminator
is a projection discriminator (Miyato and Koyama 2018).
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from models.layers import MOST_LAYERS, Conv, ConvTranspose, Dense, require_widths
from models.norms import ConditionalBatchNorm, batch_norm, check_classes
from options import option

# Radford et al. 2016, section 4: weights from N(0, 0.02²).
_initial = nn.initializers.normal(0.02)


class Generator(nn.Module):
  """Generator of a DCGAN: latents `[B, Z]` to images `[B, *image_shape]` in [0, 1].

  Attributes:
    image_shape: (H, W, C), given by the data.
    num_classes: how many labels there are, given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Channels of the feature maps, smallest map first; each doubles the side, the last one to the '
    "image's.",
    low=1,
    longest=MOST_LAYERS,
  )
  image_shape: Sequence[int]
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents: jax.Array, labels: jax.Array | None, train: bool) -> jax.Array:
    """Generates images; `labels`, int32 [B] or None, choose the scale and bias of every norm."""
    require_widths(self.widths, 'config.modules.generator')
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
      if labels is None:
        x = batch_norm(train, self.dtype, f'norm_{i}')(x)
      else:
        x = ConditionalBatchNorm(self.num_classes, self.dtype, name=f'norm_{i}')(x, labels, train)
      x = nn.relu(x)
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
  """Discriminator of a DCGAN: images `[B, H, W, C]` in [0, 1] to logits `[B]` float32.

  Attributes:
    num_classes: how many labels there are, given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Channels of the feature maps, largest map first; each halves the side.',
    low=1,
    longest=MOST_LAYERS,
  )
  norm: str = option(
    "After every layer but the first: 'batch' as published, or 'none', which a gradient penalty "
    'needs: under batch normalisation the gradient at an image depends on the others of its batch.',
    choices=('batch', 'none'),
  )
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, labels: jax.Array | None, train: bool) -> jax.Array:
    """Scores images as real or generated.

    With `labels`, int32 [B], the logit is ψ(φ(x)) + ⟨embed(y), φ(x)⟩ (Miyato and Koyama 2018,
    eq. 3). φ are the flat features that the output layer ψ reads: not pooled, as everywhere in
    DCGAN, so that a class can depend on where something is in the image.
    """
    x = (2 * images - 1).astype(self.dtype)
    for i, channels in enumerate(self.widths):
      x = Conv(
        channels,
        (4, 4),
        strides=(2, 2),
        use_bias=i == 0 or self.norm == 'none',
        kernel_init=_initial,
        dtype=self.dtype,
        name=f'down_{i}',
      )(x)
      if i and self.norm == 'batch':
        x = batch_norm(train, self.dtype, f'norm_{i}')(x)
      x = nn.leaky_relu(x, 0.2)
    x = x.reshape(x.shape[0], -1)
    logits = Dense(1, kernel_init=_initial, dtype=self.dtype, name='output')(x)[:, 0]
    if labels is not None:
      check_classes(self.num_classes)
      embed = nn.Embed(
        self.num_classes, x.shape[1], embedding_init=_initial, dtype=self.dtype, name='label'
      )
      logits += jnp.sum(embed(labels) * x, axis=-1)
    return logits.astype(jnp.float32)
