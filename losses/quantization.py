"""Vector quantization: the nearest code, its gradient, and a codebook updated by moving averages.

Features are float32 [B, h, w, D]; their codes are int32 [B, h, w], indices into a codebook [K, D].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Laplace smoothing of the counts, just enough to keep a quotient finite.
_EPSILON = 1e-5
# Weight of the uniform distribution in a marginal: a code never seen at a position costs
# log(K / weight) nats there instead of infinitely many.
_UNIFORM_WEIGHT = 1e-3


class Codebook(NamedTuple):
  """A codebook of K codes, and the exponential moving averages (EMA) that they are computed from.

  All averages start at 0, so they contain only the updates so far, and the quotient of two of them
  needs no bias correction.

  Attributes:
    embedding: the codes, [K, D].
    counts: N, the EMA of the number of features per update with each code, [K].
    sums: m, the EMA of the sum of these features, [K, D].
    positions: the EMA of the number of examples per update with each code at each position of the
      map, [h, w, K].
  """

  embedding: jax.Array
  counts: jax.Array
  sums: jax.Array
  positions: jax.Array


def squared_distances(features: jax.Array, embedding: jax.Array) -> jax.Array:
  """Returns ‖z − e‖² of features [..., D] and codes [K, D], by one matrix product: [..., K]."""
  # In full precision: rounded products would choose another code where two are almost equally near.
  products = jnp.matmul(features, embedding.T, precision=jax.lax.Precision.HIGHEST)
  lengths = jnp.square(features).sum(axis=-1, keepdims=True)
  return lengths - 2 * products + jnp.square(embedding).sum(axis=-1)


def nearest(features: jax.Array, embedding: jax.Array) -> jax.Array:
  """Returns the nearest code of each feature (van den Oord et al. 2017, eq. 1), int32 [...]."""
  return squared_distances(features, embedding).argmin(axis=-1).astype(jnp.int32)


def straight_through(features: jax.Array, quantized: jax.Array) -> jax.Array:
  """Returns `quantized`, passing its gradient on to `features` unchanged (ibid., section 3.2)."""
  return features + jax.lax.stop_gradient(quantized - features)


def commitment(features: jax.Array, quantized: jax.Array) -> jax.Array:
  """Returns ‖z − sg[e]‖² summed over the map, [B] (ibid., eq. 3, third term).

  The paper averages over the map; a sum has the scale of a reconstruction summed over pixels.
  """
  return jnp.square(features - jax.lax.stop_gradient(quantized)).sum(axis=(-3, -2, -1))


def update_codebook(
  book: Codebook, features: jax.Array, codes: jax.Array, decay: float
) -> Codebook:
  """Returns the codebook after an update of its averages (ibid., appendix A.1, eqs. 6–8).

  With γ = `decay`: N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz, e = m / N with Laplace-smoothed N. A code
  that was never used does not change.
  """
  number = book.counts.shape[0]
  one_hot = jax.nn.one_hot(codes, number)
  flat, vectors = one_hot.reshape(-1, number), features.reshape(-1, features.shape[-1])

  def average(old: jax.Array, new: jax.Array) -> jax.Array:
    return decay * old + (1 - decay) * new

  counts = average(book.counts, flat.sum(axis=0))
  sums = average(book.sums, jnp.matmul(flat.T, vectors, precision=jax.lax.Precision.HIGHEST))
  positions = average(book.positions, one_hot.sum(axis=0))
  return _with_mean_codes(Codebook(book.embedding, counts, sums, positions))


def restart_dead_codes(
  book: Codebook, features: jax.Array, threshold: float, key: jax.Array
) -> tuple[Codebook, jax.Array]:
  """Replaces codes that are hardly used by randomly sampled features (Dhariwal et al. 2020, 3.1).

  Args:
    book: a codebook after an update.
    features: the features of that update, [B, h, w, D].
    threshold: a code is dead if its count is below this fraction of the mean count, which does not
      depend on the batch size; 0 restarts none.
    key: a PRNG key, for sampling the features.

  Returns:
    (the codebook, bool [K] that is True for the dead codes). A new code starts with the mean count.
  """
  mean = book.counts.mean()
  dead = book.counts < threshold * mean
  vectors = features.reshape(-1, features.shape[-1])
  sampled = vectors[jax.random.randint(key, dead.shape, 0, vectors.shape[0])]
  counts = jnp.where(dead, mean, book.counts)
  sums = jnp.where(dead[:, None], mean * sampled, book.sums)
  return _with_mean_codes(book._replace(counts=counts, sums=sums)), dead


def _with_mean_codes(book: Codebook) -> Codebook:
  """Returns the codebook with every code set to the mean of its features, sums / counts."""
  total, codes = book.counts.sum(), book.counts.shape[0]
  smoothed = (book.counts + _EPSILON) / (total + codes * _EPSILON) * total
  used = (book.counts > 0)[:, None]
  means = book.sums / jnp.where(used, smoothed[:, None], 1)
  return book._replace(embedding=jnp.where(used, means, book.embedding))


def perplexity(counts: jax.Array) -> jax.Array:
  """Returns exp of the entropy of counts [..., K]: 1 for a single code to K for equal counts."""
  return jnp.exp(jax.scipy.special.entr(_frequencies(counts)).sum(axis=-1))


def marginals(positions: jax.Array) -> jax.Array:
  """Returns the smoothed log probability of each code at each position, from counts [h, w, K]."""
  uniform = _UNIFORM_WEIGHT / positions.shape[-1]
  return jnp.log((1 - _UNIFORM_WEIGHT) * _frequencies(positions) + uniform)


def rate(log_marginals: jax.Array, codes: jax.Array) -> jax.Array:
  """Returns −log probability in nats, [B], of codes [B, h, w] under independent positions."""
  picked = jnp.take_along_axis(log_marginals[None], codes[..., None], axis=-1)
  return -picked.sum(axis=(-3, -2, -1))


def _frequencies(counts: jax.Array) -> jax.Array:
  """Returns counts [..., K] divided by their sum; uniform where the sum is 0."""
  total = counts.sum(axis=-1, keepdims=True)
  return jnp.where(total > 0, counts / jnp.where(total > 0, total, 1), 1 / counts.shape[-1])
