"""Learned images that an encoder turns into a prior (Tomczak and Welling 2018)."""

from collections.abc import Sequence

import flax.linen as nn
import jax


class PseudoInputs(nn.Module):
  """Returns `[count, *image_shape]` float32 in (0, 1), one learned image per mixture component.

  They start as soft random blobs, which an encoder tells apart from the first step on.

  Attributes:
    count: K, components of the mixture.
    image_shape: (H, W, C), given by the data.
    blob: side of a blob in pixels.
    spread: standard deviation of the first logits.
  """

  count: int
  image_shape: Sequence[int]
  blob: int = 7
  spread: float = 2.0

  @nn.compact
  def __call__(self, train: bool) -> jax.Array:
    del train
    return nn.sigmoid(self.param('logits', self._blobs))

  def _blobs(self, key: jax.Array) -> jax.Array:
    height, width, channels = self.image_shape
    coarse = (self.count, -(-height // self.blob), -(-width // self.blob), channels)
    noise = self.spread * jax.random.normal(key, coarse)
    return jax.image.resize(noise, (self.count, height, width, channels), 'linear')
