"""Wide residual network, pre-activation blocks (He et al. 2016b; Zagoruyko and Komodakis 2016)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from models.layers import MOST_LAYERS, Conv, Dense
from models.mlp import ACTIVATIONS, activation
from models.norms import FlatBatchNorm
from options import option

_initial = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # He et al. 2015


class ResNet(nn.Module):
  """Wide residual network: images `[B, H, W, C]` in [0, 1] to `[B, outputs]` float32.

  Attributes:
    outputs: how many numbers per image, set by the objective.
    dtype: of the computation; parameters and statistics are float32.
  """

  stem: int = option('Channels of the first convolution.', low=1)
  widths: Sequence[int] = option(
    'Channels of each stage; every stage but the first halves the sides.',
    low=1,
    longest=MOST_LAYERS,
  )
  blocks: Sequence[int] = option(
    'Residual blocks of each stage.', low=1, high=MOST_LAYERS, longest=MOST_LAYERS
  )
  activation: str = option('Activation of every layer but the last.', choices=tuple(ACTIVATIONS))
  dropout: float = option(
    'Fraction of the pooled features dropped in training.', low=0, below=1, default=0.0
  )
  outputs: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    if len(self.widths) != len(self.blocks) or not self.widths:
      raise UserError(
        f'config.modules.model.blocks={tuple(self.blocks)} must hold one number for each of '
        f'widths={tuple(self.widths)}, and there must be one at least'
      )
    x = (2 * images - 1).astype(self.dtype)
    x = Conv(
      self.stem, (3, 3), use_bias=False, kernel_init=_initial, dtype=self.dtype, name='stem'
    )(x)
    for stage, (channels, blocks) in enumerate(zip(self.widths, self.blocks)):
      for block in range(blocks):
        stride = 2 if stage and not block else 1
        name = f'stage_{stage}_block_{block}'
        x = Block(channels, stride, self.activation, self.dtype, name=name)(x, train)
    x = activation(self.activation)(FlatBatchNorm(self.dtype, name='norm')(x, train))
    x = x.mean(axis=(1, 2))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Dense(self.outputs, dtype=self.dtype, name='output')(x).astype(jnp.float32)


class Block(nn.Module):
  """Residual block x + conv(act(norm(conv(act(norm(x)))))) (He et al. 2016b, figure 1(b)).

  Where the shape changes, the shortcut is a 1×1 convolution of the activated input.

  Attributes:
    channels: of both convolutions.
    stride: of the first convolution.
    activation: a name in `models.mlp.ACTIVATIONS`.
    dtype: of the computation; parameters and statistics are float32.
  """

  channels: int
  stride: int
  activation: str
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    activate = activation(self.activation)
    y = activate(FlatBatchNorm(self.dtype, name='norm_0')(x, train))
    shortcut = x
    if self.stride > 1 or x.shape[-1] != self.channels:
      shortcut = self._conv(1, self.stride, 'shortcut')(y)
    y = self._conv(3, self.stride, 'conv_0')(y)
    y = activate(FlatBatchNorm(self.dtype, name='norm_1')(y, train))
    return shortcut + self._conv(3, 1, 'conv_1')(y)

  def _conv(self, side: int, stride: int, name: str) -> Conv:
    return Conv(
      self.channels,
      (side, side),
      stride,
      use_bias=False,
      kernel_init=_initial,
      dtype=self.dtype,
      name=name,
    )
