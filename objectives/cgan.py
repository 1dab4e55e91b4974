"""Conditional GAN (Mirza and Osindero 2014): generator and discriminator are told the label."""

import dataclasses

import jax
import jax.numpy as jnp

from objectives.base import Batch, Variables, require_classes, wanted_labels
from objectives.gan import GAN


@dataclasses.dataclass(frozen=True)
class CGAN(GAN):
  """A GAN whose modules get labels: a generated image that of the example in whose place it stands.

  Attributes:
    num_classes: given by the data.
  """

  num_classes: int

  def __post_init__(self):
    super().__post_init__()
    require_classes('cgan', self.num_classes, without='gan')

  def sample(
    self, variables: Variables, key: jax.Array, num: int, label: int | jax.Array | None = None
  ) -> jax.Array:
    """Images float32 [num, H, W, C] in [0, 1]; the first k of them do not depend on `num`.

    Args:
      label: the class of all images, or int32 [num], that of each; without it every class in turn.

    Raises:
      UserError: there is no such class; not noticed where `label` is traced, so without a value.
    """
    labels = wanted_labels(label, num, self.num_classes)
    return self._generate(variables, self._prior_latents(key, num), labels)

  def _labels(self, batch: Batch) -> jax.Array:
    return batch['label']

  def _labels_in_turn(self, num: int, times: int = 1) -> jax.Array:
    return jnp.repeat(jnp.arange(num) % self.num_classes, times)
