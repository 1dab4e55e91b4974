"""Diagonal Gaussians over latents: sampling, densities, divergences, mixtures, all in nats."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

_LOG_2PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
  """A Gaussian whose coordinates are independent.

  Attributes:
    mean: float32 [..., Z].
    log_variance: float32 [..., Z].
  """

  mean: jax.Array
  log_variance: jax.Array


def sample(posterior: Gaussian, keys: jax.Array) -> jax.Array:
  """Samples once from each of B Gaussians, reparameterised (Kingma and Welling 2014, eq. 10).

  Args:
    posterior: [B, Z].
    keys: one PRNG key per example, [B].

  Returns:
    float32 [B, Z].
  """
  size = posterior.mean.shape[-1:]
  noise = jax.vmap(lambda key: jax.random.normal(key, size))(keys)
  return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


def log_prob(gaussian: Gaussian, latents: jax.Array) -> jax.Array:
  """Returns the log density of latents [..., Z], summed over coordinates: [...]."""
  scaled = jnp.square(latents - gaussian.mean) * jnp.exp(-gaussian.log_variance)
  return -0.5 * jnp.sum(scaled + gaussian.log_variance + _LOG_2PI, axis=-1)


def standard_log_prob(latents: jax.Array) -> jax.Array:
  """Returns the log density of latents [..., Z] under N(0, I): [...]."""
  return -0.5 * jnp.sum(jnp.square(latents) + _LOG_2PI, axis=-1)


def kl_to_standard_normal(posterior: Gaussian) -> jax.Array:
  """Returns KL(N(μ, σ²) ‖ N(0, 1)) of every coordinate, −½(1 + log σ² − μ² − σ²): [..., Z].

  Kingma and Welling 2014, appendix B, before the sum over coordinates.
  """
  mean, log_variance = posterior
  return -0.5 * (1 + log_variance - jnp.square(mean) - jnp.exp(log_variance))


def mixture_log_prob(components: Gaussian, latents: jax.Array) -> jax.Array:
  """Returns the log density of latents [..., Z] under a uniform mixture of Gaussians [K, Z]: [...].

  (z − μ)²/σ² is expanded, so that all N × K densities are two matrix products instead of an array
  [N, K, Z].
  """
  mean, log_variance = components
  precision = jnp.exp(-log_variance)
  flat = latents.reshape(-1, latents.shape[-1])
  # Centred: the expansion loses digits where both z and μ are far from 0.
  centre = mean.mean(axis=0)
  flat, mean = flat - centre, mean - centre
  quadratic = jnp.square(flat) @ precision.T - 2 * flat @ (mean * precision).T
  constant = jnp.sum(jnp.square(mean) * precision + log_variance + _LOG_2PI, axis=-1)
  log_densities = -0.5 * (quadratic + constant)
  mixed = jax.nn.logsumexp(log_densities, axis=-1) - math.log(mean.shape[0])
  return mixed.reshape(latents.shape[:-1])
