"""Conditional VAE (Sohn et al. 2015): encoder and decoder are told the label."""

import dataclasses

import jax
import jax.numpy as jnp

from errors import UserError
from objectives.base import Batch, Variables
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
    if not self.num_classes:
      raise UserError(
        'config.objective.name=cvae needs labels, and the data set has none; use vae, or a data '
        'set with classes'
      )

  def sample(
    self, variables: Variables, key: jax.Array, num: int, label: int | None = None
  ) -> jax.Array:
    """Images float32 [num, H, W, C] of one class, or without `label` of each in turn.

    Raises:
      UserError: there is no such class.
    """
    if label is not None and not 0 <= label < self.num_classes:
      raise UserError(f'--label={label} is no class; they go from 0 to {self.num_classes - 1}')
    labels = jnp.arange(num) % self.num_classes if label is None else jnp.full(num, label)
    latents = self._prior_latents(variables, key, num)
    return self._images(variables, latents, jax.nn.one_hot(labels, self.num_classes))

  def _condition(self, batch: Batch) -> jax.Array:
    return jax.nn.one_hot(batch['label'], self.num_classes)
