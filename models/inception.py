"""Inception-v3 (Szegedy et al. 2016) as published for the Fréchet Inception distance."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.layers import Conv, Dense

# The blocks in order: the kind of each, and its own channels.
BLOCKS: Mapping[str, tuple[str, int]] = {
  'Mixed_5b': ('A', 32),
  'Mixed_5c': ('A', 64),
  'Mixed_5d': ('A', 64),
  'Mixed_6a': ('B', 0),
  'Mixed_6b': ('C', 128),
  'Mixed_6c': ('C', 160),
  'Mixed_6d': ('C', 160),
  'Mixed_6e': ('C', 192),
  'Mixed_7a': ('D', 0),
  'Mixed_7b': ('E', 0),
  'Mixed_7c': ('E with the maximum', 0),
}


class InceptionV3(nn.Module):
  """Inception-v3 with its batch normalisation folded into kernels and biases, and 1,008 outputs.

  It is the network of 2015 that FID is defined by (Heusel et al. 2017), not the one that papers
  describe: means over a window leave out what lies beyond the image, and the last block has the
  maximum of a window for its mean. Modules have the names of torchvision's.

  Attributes:
    depth_multiplier: factor of all channels but the outputs; 1 for the published network.
    outputs: classes, the first of which stands for none.
  """

  depth_multiplier: float = 1.0
  outputs: int = 1008

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns features [B, 2048] and logits [B, outputs] of images [B, H, W, 3] in [0, 1].

    Sides are 75 pixels at least, and 299 in what is published.
    """
    x = 2 * images - 1
    x = self._convolution(32, 3, 'Conv2d_1a_3x3', stride=2)(x)
    x = self._convolution(32, 3, 'Conv2d_2a_3x3', padding='VALID')(x)
    x = self._convolution(64, 3, 'Conv2d_2b_3x3')(x)
    x = _halved(x)
    x = self._convolution(80, 1, 'Conv2d_3b_1x1')(x)
    x = self._convolution(192, 3, 'Conv2d_4a_3x3', padding='VALID')(x)
    x = _halved(x)
    for name, (kind, channels) in BLOCKS.items():
      x = _Block(kind, channels, self.depth_multiplier, name=name)(x)
    features = x.mean(axis=(1, 2))
    return features, Dense(self.outputs, name='fc')(features)

  def _convolution(self, channels: int, side: int, name: str, **options: Any) -> '_Convolution':
    width = _multiplied(channels, self.depth_multiplier)
    return _Convolution(width, (side, side), **options, name=name)


class _Convolution(nn.Module):
  """A convolution with a bias, and a ReLU; with a stride of 2 it has no padding."""

  channels: int
  kernel: tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    padding = 'VALID' if self.stride > 1 else self.padding
    return nn.relu(Conv(self.channels, self.kernel, self.stride, padding, name='conv')(x))


class _Block(nn.Module):
  """Branches side by side, their channels one after the other.

  Attributes:
    kind: a key of `_BRANCHES`.
    own: channels that blocks of a kind differ by: those of the pool's branch in A, of the long
      kernels in C.
    depth_multiplier: as of the network.
  """

  kind: str
  own: int
  depth_multiplier: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return jnp.concatenate(_BRANCHES[self.kind](self, x), axis=-1)

  def convolve(self, x: jax.Array, name: str, channels: int, *kernel: int, stride: int = 1):
    """The convolution `name` of x; its kernel is a side, or height and width."""
    sides = (kernel[0], kernel[-1])
    width = _multiplied(channels, self.depth_multiplier)
    return _Convolution(width, sides, stride, name=name)(x)


def _multiplied(channels: int, multiplier: float) -> int:
  return max(1, round(channels * multiplier))


def _halved(x: jax.Array) -> jax.Array:
  return nn.max_pool(x, (3, 3), (2, 2), 'VALID')


def _mean(x: jax.Array) -> jax.Array:
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)


def _maximum(x: jax.Array) -> jax.Array:
  return nn.max_pool(x, (3, 3), (1, 1), 'SAME')


def _branches_a(block: _Block, x: jax.Array) -> list[jax.Array]:
  convolve = block.convolve
  wide = convolve(convolve(x, 'branch5x5_1', 48, 1), 'branch5x5_2', 64, 5)
  double = convolve(convolve(x, 'branch3x3dbl_1', 64, 1), 'branch3x3dbl_2', 96, 3)
  return [
    convolve(x, 'branch1x1', 64, 1),
    wide,
    convolve(double, 'branch3x3dbl_3', 96, 3),
    convolve(_mean(x), 'branch_pool', block.own, 1),
  ]


def _branches_b(block: _Block, x: jax.Array) -> list[jax.Array]:
  convolve = block.convolve
  double = convolve(convolve(x, 'branch3x3dbl_1', 64, 1), 'branch3x3dbl_2', 96, 3)
  return [
    convolve(x, 'branch3x3', 384, 3, stride=2),
    convolve(double, 'branch3x3dbl_3', 96, 3, stride=2),
    _halved(x),
  ]


def _branches_c(block: _Block, x: jax.Array) -> list[jax.Array]:
  convolve, own = block.convolve, block.own
  long = convolve(convolve(x, 'branch7x7_1', own, 1), 'branch7x7_2', own, 1, 7)
  double = convolve(convolve(x, 'branch7x7dbl_1', own, 1), 'branch7x7dbl_2', own, 7, 1)
  double = convolve(double, 'branch7x7dbl_3', own, 1, 7)
  double = convolve(double, 'branch7x7dbl_4', own, 7, 1)
  return [
    convolve(x, 'branch1x1', 192, 1),
    convolve(long, 'branch7x7_3', 192, 7, 1),
    convolve(double, 'branch7x7dbl_5', 192, 1, 7),
    convolve(_mean(x), 'branch_pool', 192, 1),
  ]


def _branches_d(block: _Block, x: jax.Array) -> list[jax.Array]:
  convolve = block.convolve
  long = convolve(convolve(x, 'branch7x7x3_1', 192, 1), 'branch7x7x3_2', 192, 1, 7)
  long = convolve(long, 'branch7x7x3_3', 192, 7, 1)
  return [
    convolve(convolve(x, 'branch3x3_1', 192, 1), 'branch3x3_2', 320, 3, stride=2),
    convolve(long, 'branch7x7x3_4', 192, 3, stride=2),
    _halved(x),
  ]


def _branches_e(block: _Block, x: jax.Array) -> list[jax.Array]:
  return _branches_e_of(block, x, _mean(x))


def _branches_e_of_the_maximum(block: _Block, x: jax.Array) -> list[jax.Array]:
  return _branches_e_of(block, x, _maximum(x))


def _branches_e_of(block: _Block, x: jax.Array, pooled: jax.Array) -> list[jax.Array]:
  convolve = block.convolve
  single = convolve(x, 'branch3x3_1', 384, 1)
  double = convolve(convolve(x, 'branch3x3dbl_1', 448, 1), 'branch3x3dbl_2', 384, 3)
  return [
    convolve(x, 'branch1x1', 320, 1),
    convolve(single, 'branch3x3_2a', 384, 1, 3),
    convolve(single, 'branch3x3_2b', 384, 3, 1),
    convolve(double, 'branch3x3dbl_3a', 384, 1, 3),
    convolve(double, 'branch3x3dbl_3b', 384, 3, 1),
    convolve(pooled, 'branch_pool', 192, 1),
  ]


_BRANCHES = {
  'A': _branches_a,
  'B': _branches_b,
  'C': _branches_c,
  'D': _branches_d,
  'E': _branches_e,
  'E with the maximum': _branches_e_of_the_maximum,
}
