"""Losses of predictions, against scikit-learn and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from losses import classification

LOGITS = jnp.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0], [-80.0, 90.0, 0.0]])
LABELS = jnp.array([0, 1, 1])


def test_softmax_against_scikit_learn():
  loss = classification.softmax
  probability = loss.probability(LOGITS)
  np.testing.assert_allclose(probability.sum(-1), 1, rtol=1e-6)
  got = loss.loss(LOGITS, jax.nn.one_hot(LABELS, 3))
  wanted = metrics.log_loss(LABELS, np.asarray(probability, np.float64), labels=[0, 1, 2])
  np.testing.assert_allclose(got.mean(), wanted, rtol=1e-5)
  np.testing.assert_array_equal(loss.predict(LOGITS), [0, 2, 1])
  assert loss.outputs(7) == 7


def test_binary_is_softmax_of_two():
  loss = classification.binary
  logit = jnp.array([[-3.0], [0.2], [5.0]])
  target = jax.nn.one_hot(jnp.array([1, 0, 1]), 2)
  both = jnp.concatenate([jnp.zeros_like(logit), logit], axis=-1)
  np.testing.assert_allclose(
    loss.loss(logit, target), classification.softmax.loss(both, target), rtol=1e-5
  )
  np.testing.assert_allclose(loss.probability(logit), jax.nn.softmax(both), rtol=1e-5)
  np.testing.assert_array_equal(loss.predict(logit), [0, 1, 1])
  np.testing.assert_array_equal(jnp.argmax(loss.scores(logit), -1), [0, 1, 1])
  assert loss.outputs(2) == 1


@pytest.mark.parametrize('logit', [-200.0, 200.0])
def test_binary_stays_finite(logit):
  value, slope = jax.value_and_grad(
    lambda x: classification.binary.loss(x.reshape(1, 1), jnp.array([[0.0, 1.0]]))[0]
  )(jnp.float32(logit))
  np.testing.assert_allclose(value, max(-logit, 0), rtol=1e-6)
  np.testing.assert_allclose(slope, -1.0 if logit < 0 else 0.0, atol=1e-6)


def test_squared():
  loss = classification.squared
  outputs = jnp.array([[1.0], [-2.0]])
  np.testing.assert_allclose(loss.loss(outputs, jnp.array([3.0, -2.0])), [4, 0])
  assert loss.predict(outputs).shape == (2, 1) and loss.scores is None
