"""Convolutional network: convolutions and pools, then fully connected layers."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from models.kernels.max_pool import max_pool
from models.layers import MOST_LAYERS, Conv, Dense
from models.mlp import ACTIVATIONS, activation
from options import option


class CNN(nn.Module):
  """Convolutional network: images `[B, H, W, C]` in [0, 1] to `[B, outputs]` float32.

  Attributes:
    outputs: how many numbers per image, set by the objective.
    dtype: of the computation; parameters are float32.
  """

  channels: Sequence[int] = option(
    'Channels of each convolution; a pool that halves the sides follows it.',
    low=1,
    longest=MOST_LAYERS,
  )
  # Rows and columns of a kernel are traced one by one: a slip of the keyboard must not trace for
  # hours.
  kernel: int = option("Side of the convolutions' kernels.", low=1, high=255)
  widths: Sequence[int] = option(
    'Units of the hidden layers after the convolutions.', low=1, longest=MOST_LAYERS
  )
  activation: str = option('Activation of every layer but the last.', choices=tuple(ACTIVATIONS))
  dropout: float = option(
    'Fraction of the hidden units dropped in training.', low=0, below=1, default=0.0
  )
  outputs: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    height, width = images.shape[1:3]
    if min(height, width) < 2 ** len(self.channels):
      raise UserError(
        f'{len(self.channels)} pools leave nothing of {height} × {width} pixels; give '
        'config.modules.model.channels fewer entries'
      )
    activate = activation(self.activation)
    x = (2 * images - 1).astype(self.dtype)
    for i, channels in enumerate(self.channels):
      x = Conv(channels, (self.kernel, self.kernel), dtype=self.dtype, name=f'conv_{i}')(x)
      # In this order: a pool whose result feeds an activation is computed again in its gradient.
      x = max_pool(activate(x), 2)
    x = x.reshape(x.shape[0], -1)
    for i, units in enumerate(self.widths):
      x = activate(Dense(units, dtype=self.dtype, name=f'hidden_{i}')(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Dense(self.outputs, dtype=self.dtype, name='output')(x).astype(jnp.float32)
