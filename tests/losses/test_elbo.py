import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from losses import elbo, gaussian
from losses.gaussian import Gaussian


def test_the_weight_grows_on_a_line_and_stays():
  steps = jnp.arange(6)
  np.testing.assert_allclose(elbo.warmed_up(2.0, 4, steps), [0.5, 1, 1.5, 2, 2, 2])
  np.testing.assert_allclose(elbo.warmed_up(2.0, 0, steps[0]), 2.0)


def test_free_bits_hold_the_gradient_of_a_cheap_coordinate_only():
  kl = jnp.array([[0.1, 2.0], [0.3, 4.0]])
  np.testing.assert_allclose(elbo.with_free_bits(kl, 0.0), 3.2)
  np.testing.assert_allclose(elbo.with_free_bits(kl, 0.5), 3.5)
  gradient = jax.grad(lambda x: elbo.with_free_bits(x, 0.5))(kl)
  np.testing.assert_allclose(gradient, [[0, 0.5], [0, 0.5]])


class LinearGaussian:
  """p(z) = N(0, I), p(x | z) = N(Wz + b, s²I), so p(x) = N(b, WWᵀ + s²I) in closed form.

  The proposal is deliberately not the posterior, which would make every weight the same.
  """

  def __init__(self, size=2, observed=5, number=4):
    rng = np.random.default_rng(0)
    self.W, self.b, self.s = rng.normal(size=(observed, size)), rng.normal(size=observed), 0.7
    covariance = self.W @ self.W.T + self.s**2 * np.eye(observed)
    self.x = rng.multivariate_normal(self.b, covariance, number)
    self.log_likelihood = scipy.stats.multivariate_normal(self.b, covariance).logpdf(self.x)
    precision = np.eye(size) + self.W.T @ self.W / self.s**2
    mean = np.linalg.solve(precision, self.W.T @ (self.x - self.b).T / self.s**2).T
    variance = 1.5 * np.diag(np.linalg.inv(precision))
    self.proposal = Gaussian(
      jnp.float32(mean + 0.1), jnp.float32(np.log(np.broadcast_to(variance, mean.shape)))
    )

  def log_weights(self, keys):
    noise = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, self.proposal.mean.shape[1:])))(
      keys
    )
    latents = self.proposal.mean + jnp.exp(0.5 * self.proposal.log_variance) * noise
    errors = jnp.float32(self.x) - latents @ jnp.float32(self.W.T) - jnp.float32(self.b)
    log_prob = jax.scipy.stats.norm.logpdf(errors, scale=self.s).sum(-1)
    return (
      log_prob + gaussian.standard_log_prob(latents) - gaussian.log_prob(self.proposal, latents)
    )


def examples(seed):
  return jax.random.split(jax.random.key(seed), 4)


def test_the_estimator_finds_a_likelihood_known_in_closed_form():
  model = LinearGaussian()
  found, effective = elbo.importance_sampled(model.log_weights, examples(0), 20_000, 1000)
  np.testing.assert_allclose(found, model.log_likelihood, atol=0.03)
  assert (effective > 1000).all() and (effective < 20_000).all()


def test_one_sample_is_the_elbo_and_more_samples_are_a_tighter_bound():
  model = LinearGaussian()
  keys = jax.random.split(jax.random.key(1), (300, 4))

  def mean_bound(samples):
    bound = lambda key: elbo.importance_sampled(model.log_weights, key, samples, samples)[0]  # noqa: E731
    return jax.vmap(bound)(keys).mean(axis=0)

  one, ten = mean_bound(1), mean_bound(10)
  kl_gap = model.log_likelihood - one
  assert (kl_gap > 0.1).all()
  assert (one < ten).all() and (ten < model.log_likelihood).all()


@pytest.mark.parametrize('chunk', [1, 3, 7, 20, 64])
def test_the_chunk_changes_nothing(chunk):
  """20 samples in chunks that divide 20, do not, or are larger."""
  model = LinearGaussian()
  whole = elbo.importance_sampled(model.log_weights, examples(2), 20, 20)
  cut = elbo.importance_sampled(model.log_weights, examples(2), 20, chunk)
  np.testing.assert_allclose(whole[0], cut[0], rtol=1e-5)
  np.testing.assert_allclose(whole[1], cut[1], rtol=1e-4)


def test_effective_samples_of_even_weights_are_all_of_them():
  _, effective = elbo.importance_sampled(
    lambda keys: jnp.full(keys.shape, -300.0), examples(0), 50, 8
  )
  np.testing.assert_allclose(effective, 50, rtol=1e-4)


def test_an_example_draws_the_same_whatever_stands_beside_it():

  def recorded(keys):
    return jax.vmap(jax.vmap(lambda key: jax.random.normal(key)))(keys)

  whole = elbo.importance_sampled(recorded, examples(3), 20, 7)[0]
  alone = elbo.importance_sampled(recorded, examples(3)[2:3], 20, 20)[0]
  np.testing.assert_allclose(whole[2:3], alone, rtol=1e-5)
