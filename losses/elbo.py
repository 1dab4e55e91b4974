"""Parts of the ELBO (weight of the KL, free bits) and importance-sampled likelihoods."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def warmed_up(weight: float, warmup: int, step: jax.Array) -> jax.Array:
  """Returns `weight`, raised linearly from 0 over the first `warmup` steps (Bowman et al. 2016)."""
  if not warmup:
    return jnp.float32(weight)
  return weight * jnp.minimum(1.0, (step + 1) / warmup)


def with_free_bits(kl: jax.Array, free: float) -> jax.Array:
  """Returns Σⱼ max(free, mean KLⱼ) of kl [B, Z], a scalar (Kingma et al. 2016, eq. 15).

  A latent dimension whose mean KL over the batch is below `free` nats has no gradient.
  """
  if not free:
    return kl.sum(axis=-1).mean()
  return jnp.maximum(free, kl.mean(axis=0)).sum()


def log_mean_exp(log_weights: jax.Array, axis: int = 0) -> jax.Array:
  """Returns the logarithm of the mean of the weights (Burda et al. 2016, eq. 8)."""
  return jax.nn.logsumexp(log_weights, axis=axis) - math.log(log_weights.shape[axis])


def importance_sampled(
  log_weights: Callable[[jax.Array], jax.Array], keys: jax.Array, samples: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
  """Estimates log p(x) = log E_q[p(x, z)/q(z | x)] by the mean of `samples` importance weights.

  Its expectation is a lower bound that grows with `samples` (Burda et al. 2016, theorem 1).

  Args:
    log_weights: keys [chunk, B] -> log weights [chunk, B], independent samples.
    keys: PRNG keys [B]; sample i of example b has the key fold_in(keys[b], i), so neither `chunk`
      nor the batch changes the samples.
    samples: K, at least 1.
    chunk: how many samples are in memory at once.

  Returns:
    (log p(x) [B] in nats, effective sample size (Σw)²/Σw² [B] from 1 to K).
  """

  def add(sums, first):
    numbers = first + jnp.arange(chunk)
    sampled = log_weights(_keys_of_samples(keys, numbers))
    weights = jnp.where((numbers < samples)[:, None], sampled, -jnp.inf)
    new = (jax.nn.logsumexp(weights, axis=0), jax.nn.logsumexp(2 * weights, axis=0))
    return jax.tree.map(jnp.logaddexp, sums, new), None

  zero = jnp.full(keys.shape, -jnp.inf)  # the logarithm of an empty sum
  (total, squares), _ = jax.lax.scan(add, (zero, zero), jnp.arange(0, samples, chunk))
  return total - math.log(samples), jnp.exp(2 * total - squares)


def _keys_of_samples(keys: jax.Array, numbers: jax.Array) -> jax.Array:
  """Returns keys [S, B] for the samples with `numbers` int32 [S] of examples with `keys` [B]."""
  by_example = jax.vmap(jax.random.fold_in, (0, None))
  return jax.vmap(by_example, (None, 0))(keys, numbers)
