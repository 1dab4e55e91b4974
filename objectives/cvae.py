"""Conditional VAE (Sohn et al. 2015): encoder and decoder are conditioned on the label."""

import dataclasses

import jax

from objectives.base import Batch, Sampler, Variables
from objectives.labels import label_option, require_classes, sample_labels
from objectives.vae import VAE


@dataclasses.dataclass(frozen=True)
class CVAE(VAE):
  """A VAE whose condition is the one-hot label; the prior is the same for every label.

  Attributes:
    num_classes: given by the data.
  """

  num_classes: int = 0

  def __post_init__(self):
    super().__post_init__()
    require_classes('cvae', self.num_classes, without='vae')

  @property
  def sampler(self) -> Sampler:
    options = {'label': label_option(self.num_classes)}
    return Sampler('image', self._sample, options, self._sample_labels)

  def _sample(
    self, variables: Variables, keys: jax.Array, numbers: jax.Array, label: int | None = None
  ) -> jax.Array:
    labels = jax.nn.one_hot(self._sample_labels(numbers, label), self.num_classes)
    return self._images(variables, self._prior_latents(variables, keys), labels)

  def _sample_labels(self, numbers: jax.Array, label: int | None = None) -> jax.Array:
    return sample_labels(numbers, label, self.num_classes)

  @property
  def _is_conditioned(self) -> bool:
    return True

  def _condition(self, batch: Batch) -> jax.Array:
    return jax.nn.one_hot(batch['label'], self.num_classes)
