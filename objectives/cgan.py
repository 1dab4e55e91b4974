"""Conditional GAN (Mirza and Osindero 2014): both modules are conditioned on the label."""

import dataclasses

import jax

from objectives.base import Batch, Sampler
from objectives.gan import GAN
from objectives.labels import label_option, require_classes, sample_labels


@dataclasses.dataclass(frozen=True)
class CGAN(GAN):
  """A GAN whose modules get labels: a generated image that of the example in whose place it stands.

  Attributes:
    num_classes: given by the data.
  """

  num_classes: int = 0

  def __post_init__(self):
    super().__post_init__()
    require_classes('cgan', self.num_classes, without='gan')

  @property
  def sampler(self) -> Sampler:
    options = {'label': label_option(self.num_classes)}
    return Sampler('image', self._sample, options, self.sample_labels)

  def labels(self, batch: Batch) -> jax.Array:
    return batch['label']

  def sample_labels(self, numbers: jax.Array, label: int | None = None) -> jax.Array:
    return sample_labels(numbers, label, self.num_classes)
