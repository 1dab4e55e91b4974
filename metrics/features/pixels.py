"""Feature extractors that use pixels: all of them, or their means over blocks."""

import dataclasses
from typing import Any

import jax

from metrics.base import Extracted, FeatureExtractor
from options import option


@dataclasses.dataclass(frozen=True)
class Pixels(FeatureExtractor):
  """The pixels of an image, H·W·C features."""

  @property
  def label(self) -> str:
    return 'pixels'

  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    del parameters
    return Extracted(images.reshape(images.shape[0], -1))


@dataclasses.dataclass(frozen=True)
class BlockMeans(FeatureExtractor):
  """The means of the pixels in each of side × side blocks, side·side·C features."""

  side: int = option(
    "Blocks along either axis; an image's height and width are cropped to a multiple of it.", low=1
  )

  @property
  def label(self) -> str:
    return f'pixels{self.side}'

  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    del parameters
    number, height, width, channels = images.shape
    if min(height, width) < self.side:
      raise ValueError(
        f"side={self.side} must be from 1 to the image's {min(height, width)} pixels"
      )
    rows, columns = height // self.side, width // self.side
    cropped = images[:, : rows * self.side, : columns * self.side]
    blocks = cropped.reshape(number, self.side, rows, self.side, columns, channels)
    return Extracted(blocks.mean(axis=(2, 4)).reshape(number, -1))
