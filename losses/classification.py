"""Losses of a prediction against a label or a target, per example; found by name in a config.

Each entry says how many numbers the model gives per example, and what they mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Loss(NamedTuple):
  """A loss and the reading of the model's outputs that goes with it.

  Attributes:
    outputs: numbers per example for K classes.
    loss: (outputs [B, outputs], target) -> [B]. The target is a distribution over the classes
      float32 [B, K], or for regression a value float32 [B].
    predict: outputs -> class int32 [B], or for regression value float32 [B, 1].
    scores: outputs -> logits [B, K]; None for regression.
    probability: outputs -> [B, K]; None for regression.
  """

  outputs: Callable[[int], int]
  loss: Callable[[jax.Array, jax.Array], jax.Array]
  predict: Callable[[jax.Array], jax.Array]
  scores: Callable[[jax.Array], jax.Array] | None
  probability: Callable[[jax.Array], jax.Array] | None


def _softmax_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


softmax = Loss(
  outputs=lambda classes: classes,
  loss=_softmax_cross_entropy,
  predict=lambda logits: jnp.argmax(logits, axis=-1).astype(jnp.int32),
  scores=lambda logits: logits,
  probability=lambda logits: jax.nn.softmax(logits),
)


def _binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """−t log σ(l) − (1 − t) log(1 − σ(l)), t the share of class 1, in the form without overflow."""
  logit, positive = logits[:, 0], target[:, 1]
  return jnp.maximum(logit, 0) - logit * positive + jnp.log1p(jnp.exp(-jnp.abs(logit)))


binary = Loss(
  outputs=lambda classes: 1,
  loss=_binary_cross_entropy,
  predict=lambda logits: (logits[:, 0] > 0).astype(jnp.int32),
  scores=lambda logits: jnp.concatenate([-logits, logits], axis=-1),
  probability=lambda logits: jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1)),
)

squared = Loss(
  outputs=lambda classes: 1,
  loss=lambda outputs, target: jnp.square(outputs[:, 0] - target),
  predict=lambda outputs: outputs,
  scores=None,
  probability=None,
)
