"""Losses of classifiers and regressions, per example; `config.objective.loss` names one of them.

Each loss also defines how many numbers the model outputs per example, and what they mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Loss(NamedTuple):
  """A loss, and how the model's outputs are turned into predictions and probabilities.

  Attributes:
    outputs: K classes -> how many numbers the model outputs per example.
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


softmax = Loss(
  outputs=lambda classes: classes,
  loss=optax.losses.softmax_cross_entropy,
  predict=lambda logits: jnp.argmax(logits, axis=-1).astype(jnp.int32),
  scores=lambda logits: logits,
  probability=lambda logits: jax.nn.softmax(logits),
)


# The logit is that of class 1 of two.
binary = Loss(
  outputs=lambda classes: 1,
  loss=lambda logits, target: optax.losses.sigmoid_binary_cross_entropy(logits[:, 0], target[:, 1]),
  predict=lambda logits: (logits[:, 0] > 0).astype(jnp.int32),
  scores=lambda logits: jnp.concatenate([-logits, logits], axis=-1),
  probability=lambda logits: jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1)),
)

squared = Loss(
  outputs=lambda classes: 1,
  loss=lambda outputs, target: optax.losses.squared_error(outputs[:, 0], target),
  predict=lambda outputs: outputs,
  scores=None,
  probability=None,
)
