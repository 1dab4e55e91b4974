"""Pseudo-inputs of a VampPrior: learned images whose encodings are the prior's components.

Tomczak and Welling 2018, section 2.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax


class PseudoInputs(nn.Module):
  """Learned images `[count, *image_shape]` float32 in (0, 1), one per component of a mixture.

  They start as smooth random blobs, whose encodings differ from the first step on.

  Attributes:
    count: K, how many components the mixture has.
    image_shape: (H, W, C), given by the data.
    blob: side of a blob in pixels.
    spread: standard deviation of the initial logits.
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
