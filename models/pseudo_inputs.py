"""Pseudo-inputs of a VampPrior: learned images whose encodings are the prior's components.

Tomczak and Welling 2018, section 2.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax

from options import option


class PseudoInputs(nn.Module):
  """Learned images `[count, *image_shape]` float32 in (0, 1), one per component of a mixture.

  They start as smooth random blobs, whose encodings differ from the first step on.

  Attributes:
    image_shape: (H, W, C), given by the data.
  """

  count: int = option('How many components the mixture has.', low=1)
  image_shape: Sequence[int]
  blob: int = option('Side of an initial blob in pixels.', low=1, default=7)
  spread: float = option('Standard deviation of the initial logits.', above=0, default=2.0)

  @nn.compact
  def __call__(self, train: bool) -> jax.Array:
    del train
    return nn.sigmoid(self.param('logits', self._blobs))

  def _blobs(self, key: jax.Array) -> jax.Array:
    height, width, channels = self.image_shape
    coarse = (self.count, -(-height // self.blob), -(-width // self.blob), channels)
    noise = self.spread * jax.random.normal(key, coarse)
    return jax.image.resize(noise, (self.count, height, width, channels), 'linear')
