import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from losses import likelihood

IMAGES = jax.random.uniform(jax.random.key(0), (3, 4, 4, 2))


def outputs_of(model, spread=2.0):
  return spread * jax.random.normal(jax.random.key(1), (*IMAGES.shape, model.outputs))


def test_bernoulli_is_the_cross_entropy_and_stays_finite():
  model = likelihood.bernoulli(0.0)
  outputs = outputs_of(model)
  p = np.asarray(jax.nn.sigmoid(outputs[..., 0]), np.float64)
  expected = (IMAGES * np.log(p) + (1 - IMAGES) * np.log1p(-p)).sum((1, 2, 3))
  np.testing.assert_allclose(model.log_prob(IMAGES, outputs), expected, rtol=1e-5)
  np.testing.assert_allclose(model.mean(outputs), p, rtol=1e-5)
  value, gradient = jax.value_and_grad(lambda o: model.log_prob(IMAGES, o).sum())(1e4 * outputs)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_bernoulli_s_own_derivatives_are_the_right_ones():
  model = likelihood.bernoulli(0.0)
  outputs = outputs_of(model)

  def plain(images, outputs):
    logits = outputs[..., 0]
    return (images * logits - jax.nn.softplus(logits)).sum()

  own = lambda *a: model.log_prob(*a).sum()  # noqa: E731
  for a, b in zip(*(jax.grad(f, (0, 1))(IMAGES, outputs) for f in (own, plain))):
    np.testing.assert_allclose(a, b, atol=1e-6)
  # In forward mode along both operands and along one, and of the gradient.
  towards = (jnp.cos(IMAGES), jnp.sin(outputs))
  for f in (lambda f: f, lambda f: jax.grad(f, 1), lambda f: jax.grad(f, 0)):
    values = (jax.jvp(f(g), (IMAGES, outputs), towards) for g in (own, plain))
    for a, b in zip(*values):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  for at in (0, 1):
    along = lambda g, at=at: jax.jvp(  # noqa: E731
      lambda x: g(*(x if i == at else v for i, v in enumerate((IMAGES, outputs)))),
      ((IMAGES, outputs)[at],),
      (towards[at],),
    )
    np.testing.assert_allclose(along(own), along(plain), rtol=1e-5)
  # Several samples of the latents of one image: the gradient of the image is their sum.
  many = jnp.stack([outputs, 2 * outputs])
  ours = jax.grad(lambda x: model.log_prob(x[None], many).sum())(IMAGES)
  np.testing.assert_allclose(ours, many.sum(axis=(0, -1)), rtol=1e-5)


@pytest.mark.parametrize('variance', [0.01, 1.0])
def test_gaussian_is_scipy_s(variance):
  model = likelihood.gaussian(variance)
  outputs = outputs_of(model)
  expected = scipy.stats.norm.logpdf(IMAGES, model.mean(outputs), np.sqrt(variance))
  np.testing.assert_allclose(
    model.log_prob(IMAGES, outputs), expected.sum((1, 2, 3)), rtol=1e-4, atol=1e-3
  )


def test_a_learned_variance_is_best_at_the_squared_error():
  model = likelihood.gaussian(0.0)
  means = outputs_of(model)[..., 0]
  error = jnp.square(IMAGES - jax.nn.sigmoid(means)).mean((1, 2, 3))

  def log_prob(log_variance):
    plane = jnp.broadcast_to(log_variance[:, None, None, None], means.shape)
    return model.log_prob(IMAGES, jnp.stack([means, plane], -1))

  best = log_prob(jnp.log(error))
  assert (best > log_prob(jnp.log(error) + 0.1)).all()
  assert (best > log_prob(jnp.log(error) - 0.1)).all()
  expected = scipy.stats.norm.logpdf(
    IMAGES, jax.nn.sigmoid(means), np.sqrt(error)[:, None, None, None]
  )
  np.testing.assert_allclose(best, expected.sum((1, 2, 3)), rtol=1e-3)


@pytest.mark.slow
def test_categorical_probabilities_of_all_levels_add_up_to_one():
  model = likelihood.categorical(0.0)
  outputs = outputs_of(model)[:1, :1, :1, :1]
  levels = jnp.arange(256)[:, None, None, None] / 255
  log_probs = model.log_prob(levels, jnp.tile(outputs, (256, 1, 1, 1, 1)))
  np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1, rtol=1e-4)
  expected = (jnp.exp(log_probs) * levels.ravel()).sum()
  np.testing.assert_allclose(model.mean(outputs).ravel(), expected, rtol=1e-4)
