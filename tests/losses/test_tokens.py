"""Cross-entropy of tokens, by hand and against JAX's own derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from losses import tokens

LOGITS = jnp.array([[[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], [[-80.0, 90.0, 0.0], [1.0, 1.0, 1.0]]])
TARGETS = jnp.array([[0, 1], [0, -1]])


def test_by_hand():
  wanted = [
    [np.log(np.exp(2) + np.exp(-1) + np.exp(0.5)) - 2, np.log(2 + np.exp(3)) - 0],
    [170, 0],
  ]
  losses = tokens.cross_entropy(LOGITS, TARGETS)
  assert losses.dtype == jnp.float32
  np.testing.assert_allclose(losses, wanted, rtol=1e-6)


def test_derivatives_are_jax_s_of_the_plain_formula():
  logits = jax.random.normal(jax.random.key(0), (4, 5, 11)) * 3
  targets = jax.random.randint(jax.random.key(1), (4, 5), 0, 11).at[1].set(-1)
  slopes = jax.random.normal(jax.random.key(2), (4, 5))

  def plain(logits):
    chosen = jax.nn.log_softmax(logits) * jax.nn.one_hot(targets, 11)
    return -(slopes * chosen.sum(-1)).sum()

  def own(logits):
    return (slopes * tokens.cross_entropy(logits, targets)).sum()

  np.testing.assert_allclose(own(logits), plain(logits), rtol=1e-5)
  np.testing.assert_allclose(jax.grad(own)(logits), jax.grad(plain)(logits), atol=1e-6)
  # In forward mode, and as often as asked: the derivative of the gradient, in both modes.
  towards = jnp.cos(logits)
  forward = lambda f: jax.jvp(f, (logits,), (towards,))  # noqa: E731
  np.testing.assert_allclose(forward(own), forward(plain), rtol=1e-5)
  for a, b in zip(forward(jax.grad(own)), forward(jax.grad(plain))):
    np.testing.assert_allclose(a, b, atol=1e-5)
  twice = lambda f: jax.grad(lambda x: jnp.square(jax.grad(f)(x)).sum())(logits)  # noqa: E731
  np.testing.assert_allclose(twice(own), twice(plain), atol=1e-5)


def test_the_gradient_needs_no_scatter():
  """Guards the reason for the written-out derivative."""
  gradient = lambda f: jax.jit(jax.grad(lambda x: f(x, TARGETS).sum()))  # noqa: E731
  assert 'scatter' not in gradient(tokens.cross_entropy).lower(LOGITS).as_text()
  indexed = optax.losses.softmax_cross_entropy_with_integer_labels
  assert 'scatter' in gradient(indexed).lower(LOGITS).as_text()


@pytest.mark.parametrize('size', [1e4, -1e4])
def test_large_logits_stay_finite(size):
  value, slope = jax.value_and_grad(
    lambda x: tokens.cross_entropy(jnp.stack([x, jnp.zeros(())]), jnp.int32(0))
  )(jnp.float32(size))
  np.testing.assert_allclose(value, max(-size, 0), rtol=1e-6)
  np.testing.assert_allclose(slope, -1 if size < 0 else 0, atol=1e-6)


def test_half_precision_is_summed_in_float32():
  logits = jnp.zeros((1, 50_000), jnp.bfloat16)
  value, slope = jax.value_and_grad(lambda x: tokens.cross_entropy(x, jnp.array([3])).sum())(logits)
  assert value.dtype == jnp.float32 and slope.dtype == jnp.bfloat16
  np.testing.assert_allclose(value, np.log(50_000), rtol=1e-6)


def test_the_mean_leaves_out_what_is_not_real():
  values = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.nan, 0.0], [jnp.nan, 7.0, 7.0]])
  real = jnp.array([[True, True, False], [True, False, True], [False, False, False]])
  np.testing.assert_allclose(tokens.mean(values, real, axis=-1), [1.5, 2, 0])
  np.testing.assert_allclose(tokens.mean(values, real), 7 / 4)
