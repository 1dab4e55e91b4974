"""Classes that a generator is conditioned on: the option, and the class of every sample."""

import jax
import jax.numpy as jnp

from errors import UserError
from options import Option


def require_classes(name: str, num_classes: int, without: str) -> None:
  """Raises UserError where the data has no classes; `without` is the objective that needs none."""
  if not num_classes:
    raise UserError(
      f'config.objective.name={name} needs labels, and the data set has none; use {without}, or a '
      'data set with classes'
    )


def label_option(num_classes: int) -> Option:
  """The sampler's option `label` of a model with `num_classes` classes."""
  doc = f'Class of every sample, 0 to {num_classes - 1}; without it every class in turn.'
  return Option(int, None, doc, low=0, high=num_classes - 1)


def sample_labels(numbers: jax.Array, label: int | None, num_classes: int) -> jax.Array:
  """Returns the class int32 [B] of the samples with these numbers int32 [B].

  Args:
    numbers: of the samples.
    label: the class of all; None for every class in turn.
    num_classes: how many classes there are.
  """
  if label is None:
    return numbers % num_classes
  return jnp.full(numbers.shape, label, jnp.int32)
