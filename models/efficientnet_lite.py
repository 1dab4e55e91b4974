"""EfficientNet-Lite0, an ImageNet classifier that is fast on a CPU (Tan and Le 2019; Liu 2020)."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from models.layers import Conv, Dense


class Stage(NamedTuple):
  """Blocks of one kind, one after the other; the first of them has the stride.

  Attributes:
    blocks: how many.
    kernel: side of the depthwise kernels.
    stride: of the first block.
    expansion: channels in a block, as a multiple of those that enter it.
    channels: of the output.
  """

  blocks: int
  kernel: int
  stride: int
  expansion: int
  channels: int


# Table 1 of Tan and Le; Lite has ReLU6 for Swish and no squeeze-and-excitation.
LITE0 = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
# Images are (x − 127) / 128 of 8-bit values x.
_MEAN, _SCALE = 127 / 255, 255 / 128

relu6 = jax.nn.relu6


class EfficientNetLite(nn.Module):
  """EfficientNet-Lite with its batch normalisation folded into kernels and biases.

  It is for weights that were trained elsewhere. With fixed statistics a batch normalisation is a
  factor, which is multiplied into the kernel before it, and a bias.

  Attributes:
    stages: of blocks.
    stem: channels of the first convolution.
    head: channels of the last one, which are the features.
    outputs: classes.
  """

  stages: Sequence[Stage] = LITE0
  stem: int = 32
  head: int = 1280
  outputs: int = 1000

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns features [B, head] and logits [B, outputs] of images [B, H, W, 3] in [0, 1]."""
    x = (images - _MEAN) * _SCALE
    x = relu6(Conv(self.stem, (3, 3), 2, name='stem')(x))
    number = 0
    for stage in self.stages:
      for block in range(stage.blocks):
        stride = 1 if block else stage.stride
        x = Block(stage._replace(stride=stride), name=f'block_{number}')(x)
        number += 1
    x = relu6(Dense(self.head, name='head')(x))
    features = x.mean(axis=(1, 2))
    return features, Dense(self.outputs, name='output')(features)


class Block(nn.Module):
  """Inverted residual block (Sandler et al. 2018): 1×1 up, depthwise, 1×1 down, plus the input.

  Attributes:
    stage: of which this is one block.
  """

  stage: Stage

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x [B, H, W, C] → [B, H', W', stage.channels]."""
    y, stage = x, self.stage
    if stage.expansion > 1:
      y = relu6(Dense(x.shape[-1] * stage.expansion, name='expand')(y))
    y = relu6(Depthwise(stage.kernel, stage.stride, name='depthwise')(y))
    y = Dense(stage.channels, name='project')(y)
    return x + y if stage.stride == 1 and x.shape == y.shape else y


class Depthwise(nn.Module):
  """Convolution of each channel by itself, 'SAME', with a bias; parameters `kernel` [k, k, C].

  Attributes:
    side: k.
    stride: of both axes.
  """

  side: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x [B, H, W, C] → [B, ⌈H / stride⌉, ⌈W / stride⌉, C]."""
    shape = (self.side, self.side, x.shape[-1])
    kernel = self.param('kernel', nn.initializers.normal(1 / self.side), shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (x.shape[-1],))
    return (
      lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted_sums, stride=self.stride),
        default=functools.partial(_grouped, stride=self.stride),
      )
      + bias
    )


def _grouped(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  return lax.conv_general_dilated(
    x,
    kernel[:, :, None],
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _shifted_sums(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """A sum over the taps: XLA:CPU has no fast grouped convolution, and fuses this into one loop."""
  side = kernel.shape[0]
  pads = lax.padtype_to_pads(x.shape[1:3], (side, side), (stride, stride), 'SAME')
  # Else every tap asks of every pixel whether it lies in the padding.
  x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
  height, width = ((size - side) // stride + 1 for size in x.shape[1:3])
  y: Any = 0
  for i in range(side):
    for j in range(side):
      rows, columns = (at + (n - 1) * stride + 1 for at, n in ((i, height), (j, width)))
      y += x[:, i:rows:stride, j:columns:stride] * kernel[i, j]
  return y
