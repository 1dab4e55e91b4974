import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from losses import gaussian
from losses.gaussian import Gaussian

MEAN = jnp.array([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]])
LOG_VARIANCE = jnp.array([[-1.0, 0.5, -3.0], [0.0, 0.0, 0.0]])


def test_kl_is_what_monte_carlo_finds():
  """E_q[log q(z) − log p(z)] from a million samples, which share nothing with the closed form."""
  posterior = Gaussian(MEAN, LOG_VARIANCE)
  rng = np.random.default_rng(0)
  scale = np.exp(0.5 * np.asarray(LOG_VARIANCE))
  samples = rng.normal(np.asarray(MEAN), scale, (1_000_000, 2, 3))
  ratio = scipy.stats.norm.logpdf(samples, MEAN, scale) - scipy.stats.norm.logpdf(samples)
  closed = gaussian.kl_to_standard_normal(posterior)
  np.testing.assert_allclose(closed, ratio.mean(axis=0), atol=0.01)
  np.testing.assert_allclose(closed[1], 0, atol=1e-7)


def test_densities_are_scipy_s():
  latents = jax.random.normal(jax.random.key(0), (5, 2, 3))
  scale = np.exp(0.5 * np.asarray(LOG_VARIANCE))
  expected = scipy.stats.norm.logpdf(latents, MEAN, scale).sum(-1)
  np.testing.assert_allclose(
    gaussian.log_prob(Gaussian(MEAN, LOG_VARIANCE), latents), expected, rtol=1e-5
  )
  expected = scipy.stats.norm.logpdf(latents).sum(-1)
  np.testing.assert_allclose(gaussian.standard_log_prob(latents), expected, rtol=1e-5)


def test_samples_have_their_moments_and_depend_on_their_own_key():
  posterior = Gaussian(jnp.tile(MEAN[:1], (4000, 1)), jnp.tile(LOG_VARIANCE[:1], (4000, 1)))
  keys = jax.random.split(jax.random.key(0), 4000)
  samples = gaussian.sample(posterior, keys)
  np.testing.assert_allclose(samples.mean(axis=0), MEAN[0], atol=0.08)
  np.testing.assert_allclose(samples.std(axis=0), np.exp(0.5 * LOG_VARIANCE[0]), rtol=0.05)
  part = gaussian.sample(Gaussian(MEAN[:1], LOG_VARIANCE[:1]), keys[7:8])
  np.testing.assert_allclose(part[0], samples[7], rtol=1e-6)


def test_a_mixture_is_the_mean_of_its_components_densities():
  rng = np.random.default_rng(1)
  # Far from 0, where an expansion without centring loses its digits.
  mean, log_variance = rng.normal(30, 2, (7, 3)), rng.uniform(-4, 1, (7, 3))
  latents = rng.normal(30, 2, (2, 5, 3))
  densities = scipy.stats.norm.logpdf(latents[..., None, :], mean, np.exp(0.5 * log_variance))
  expected = scipy.special.logsumexp(densities.sum(-1), axis=-1) - np.log(7)
  components = Gaussian(jnp.float32(mean), jnp.float32(log_variance))
  found = gaussian.mixture_log_prob(components, jnp.float32(latents))
  np.testing.assert_allclose(found, expected, rtol=2e-4)
