"""Conditional VAE (Sohn et al. 2015): encoder and decoder are told the label."""

import dataclasses

import jax

from objectives.base import Batch, Variables, require_classes, wanted_labels
from objectives.vae import VAE


@dataclasses.dataclass(frozen=True)
class CVAE(VAE):
  """A VAE whose condition is the one-hot label; the prior is the same for every label.

  Attributes:
    num_classes: given by the data.
  """

  num_classes: int

  def __post_init__(self):
    super().__post_init__()
    require_classes('cvae', self.num_classes, without='vae')

  def sample(
    self, variables: Variables, key: jax.Array, num: int, label: int | jax.Array | None = None
  ) -> jax.Array:
    """Images float32 [num, H, W, C] of one class, or without `label` of each in turn.

    Args:
      label: the class of all images, or int32 [num], that of each.

    Raises:
      UserError: there is no such class; not noticed where `label` is traced, so without a value.
    """
    labels = wanted_labels(label, num, self.num_classes)
    latents = self._prior_latents(variables, key, num)
    return self._images(variables, latents, jax.nn.one_hot(labels, self.num_classes))

  def _condition(self, batch: Batch) -> jax.Array:
    return jax.nn.one_hot(batch['label'], self.num_classes)
