"""DCGAN (Radford et al. 2016): strided convolutions, batch normalisation, no pooling.

Two upsamplings and two downsamplings, so any image whose sides are multiples of four. Where labels
are told, the generator's batch normalisation is conditional and the discriminator is a projection
discriminator (Miyato and Koyama 2018).
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
# How far the tables of labels begin apart.
_spread = nn.initializers.normal(0.3)


class Generator(nn.Module):
  """Latents `[B, Z]` to images `[B, *image_shape]` in [0, 1].

  Attributes:
    widths: channels of the feature maps, smallest map first; there is one doubling of the side per
      width, the last of them to the image.
    image_shape: (H, W, C), given by the data.
    num_classes: how many labels there are, given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int]
  image_shape: Sequence[int]
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents: jax.Array, labels: jax.Array | None, train: bool) -> jax.Array:
    """`labels`, int32 [B] or None, choose the scale and bias of every normalisation."""
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
        x = normalise(train, self.dtype, f'norm_{i}')(x)
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
  """Images `[B, H, W, C]` in [0, 1] to logits `[B]` float32.

  Attributes:
    widths: channels of the feature maps, largest map first; each halves the side.
    num_classes: how many labels there are, given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int]
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, labels: jax.Array | None, train: bool) -> jax.Array:
    """With `labels`, int32 [B], the logit is ψ(φ(x)) + ⟨embed(y), φ(x)⟩ (Miyato and Koyama 2018,
    eq. 3). φ are the flat features that the output layer ψ reads: without pooling, as in all of
    DCGAN, so that a class may look at places.
    """
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
    logits = Dense(1, kernel_init=_initial, dtype=self.dtype, name='output')(x)[:, 0]
    if labels is not None:
      _check_classes(self.num_classes)
      embed = nn.Embed(
        self.num_classes, x.shape[1], embedding_init=_initial, dtype=self.dtype, name='label'
      )
      logits += jnp.sum(embed(labels) * x, axis=-1)
    return logits.astype(jnp.float32)


class ConditionalBatchNorm(nn.Module):
  """Batch normalisation with a scale and a bias for each label (Dumoulin et al. 2017, section 2.2,
  who normalise single images). The statistics are of the whole batch, whatever its labels.

  The tables begin apart: begun as one, they move by Adam's small steps only, and the discriminator
  learns that images and labels do not belong together long before the generator can tell labels.

  Attributes:
    num_classes: how many labels there are.
    dtype: of the result; parameters are float32.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
    """x [B, H, W, C] and labels int32 [B] → [B, H, W, C]."""
    _check_classes(self.num_classes)
    shape = (self.num_classes, x.shape[-1])
    tables = (
      self.param('scale', lambda *given: 1 + _spread(*given), shape),
      self.param('bias', _spread, shape),
    )
    scale, bias = (jnp.take(table, labels, axis=0)[:, None, None] for table in tables)
    x = normalise(train, jnp.float32, 'batch', affine=False)(x)
    return (x * scale + bias).astype(self.dtype)


def normalise(train: bool, dtype: Any, name: str, affine: bool = True) -> nn.Module:
  """Batch normalisation: the batch's statistics in training, running averages otherwise.

  Without `affine` it has neither scale nor bias.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    use_scale=affine,
    use_bias=affine,
    dtype=dtype,
    name=name,
  )


def _check_classes(num_classes: int) -> None:
  if num_classes < 1:
    raise UserError(
      f'num_classes={num_classes} of a DCGAN that is told labels must be at least 1; take a data '
      'set with classes'
    )
