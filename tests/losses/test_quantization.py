import jax
import jax.numpy as jnp
import numpy as np

from losses import quantization
from losses.quantization import Codebook

CODES, SIZE = 5, 3


def features(seed=0, shape=(4, 2, 3, SIZE)):
  return jax.random.normal(jax.random.key(seed), shape)


def codes(seed=1):
  return jax.random.normal(jax.random.key(seed), (CODES, SIZE))


def fresh(embedding=None, place=(2, 3)):
  embedding = codes() if embedding is None else embedding
  number, size = embedding.shape
  nothing = (jnp.zeros(number), jnp.zeros((number, size)), jnp.zeros((*place, number)))
  return Codebook(embedding, *nothing)


def test_the_nearest_code_is_brute_force_s():
  z, e = np.asarray(features(shape=(7, 4, 4, SIZE)), np.float64), np.asarray(codes(), np.float64)
  distances = np.square(z[..., None, :] - e).sum(axis=-1)
  np.testing.assert_allclose(quantization.squared_distances(z, e), distances, atol=1e-5)
  found = quantization.nearest(jnp.asarray(z), jnp.asarray(e))
  np.testing.assert_array_equal(found, distances.argmin(axis=-1))
  assert found.dtype == jnp.int32 and len(np.unique(found)) > 1


def test_straight_through_is_the_code_and_its_gradient_the_feature_s():
  z, e = features(), codes()
  quantized = e[quantization.nearest(z, e)]
  np.testing.assert_allclose(quantization.straight_through(z, quantized), quantized, atol=1e-6)
  weights = features(2)

  def downstream(q):
    return (weights * jnp.sin(q)).sum()

  through, to_codes = jax.grad(
    lambda z, q: downstream(quantization.straight_through(z, q)), argnums=(0, 1)
  )(z, quantized)
  np.testing.assert_allclose(through, jax.grad(downstream)(quantized), atol=1e-5)
  assert not to_codes.any()


def test_commitment_pulls_the_features_alone():
  z, q = features(), features(3)
  np.testing.assert_allclose(
    quantization.commitment(z, q), np.square(z - q).sum(axis=(1, 2, 3)), rtol=1e-5
  )
  gradients = jax.grad(lambda z, q: quantization.commitment(z, q).sum(), argnums=(0, 1))(z, q)
  np.testing.assert_allclose(gradients[0], 2 * (z - q), rtol=1e-5)
  assert not gradients[1].any()


def test_the_averages_are_those_of_a_hand_computation():
  z = jnp.array([[[[1.0, 0.0], [3.0, 2.0]]], [[[5.0, 4.0], [0.0, 8.0]]]])  # [2, 1, 2, 2]
  chosen = jnp.array([[[0, 0]], [[0, 2]]])
  # N = (2, 0, 4), m = ((2, 2), (0, 0), (4, 4)); n = (3, 0, 1), Σz = ((9, 6), (0, 0), (0, 8)).
  book = Codebook(
    jnp.array([[1.0, 1.0], [7.0, 7.0], [1.0, 1.0]]),
    jnp.array([2.0, 0.0, 4.0]),
    jnp.array([[2.0, 2.0], [0.0, 0.0], [4.0, 4.0]]),
    jnp.zeros((1, 2, 3)),
  )
  book = quantization.update_codebook(book, z, chosen, decay=0.75)
  np.testing.assert_allclose(book.counts, [2.25, 0, 3.25])
  np.testing.assert_allclose(book.sums, [[3.75, 3], [0, 0], [3, 5]])
  np.testing.assert_allclose(book.positions, [[[0.5, 0, 0], [0.25, 0, 0.25]]])
  smoothed = (np.array([2.25, 3.25]) + 1e-5) / (5.5 + 3e-5) * 5.5
  expected = np.array([[3.75, 3], [3, 5]]) / smoothed[:, None]
  np.testing.assert_allclose(book.embedding[jnp.array([0, 2])], expected, rtol=1e-6)
  np.testing.assert_array_equal(book.embedding[1], [7, 7])  # never chosen: it stays


def test_from_nothing_the_first_update_gives_the_means():
  z = features()
  chosen = quantization.nearest(z, codes())
  book = quantization.update_codebook(fresh(), z, chosen, decay=0.99)
  for code in np.unique(chosen):
    np.testing.assert_allclose(book.embedding[code], z[chosen == code].mean(axis=0), rtol=1e-3)


def test_a_dead_code_is_restarted_and_a_live_one_is_not():
  z = features()
  counts = jnp.array([8.0, 8.0, 0.7, 8.0, 0.9])  # the mean is 5.12, of which a 0.15th is 0.768
  book = fresh()._replace(counts=counts, sums=counts[:, None] * codes())
  after, dead = quantization.restart_dead_codes(book, z, 0.15, jax.random.key(0))
  np.testing.assert_array_equal(dead, [False, False, True, False, False])
  live = ~np.asarray(dead)
  np.testing.assert_allclose(after.embedding[live], codes()[live], rtol=1e-4)
  np.testing.assert_array_equal(after.counts[live], counts[live])
  distances = np.abs(z.reshape(-1, SIZE) - after.embedding[2]).max(axis=-1)
  assert distances.min() < 1e-4, 'the new code is one of the features'
  np.testing.assert_allclose(after.counts[2], 5.12, rtol=1e-6)


def test_restarts_draw_by_the_key_and_never_with_threshold_0():
  z, empty = features(), fresh()._replace(counts=jnp.array([9.0, 0, 0, 0, 0]))
  first, dead = quantization.restart_dead_codes(empty, z, 0.1, jax.random.key(0))
  again, _ = quantization.restart_dead_codes(empty, z, 0.1, jax.random.key(0))
  other, _ = quantization.restart_dead_codes(empty, z, 0.1, jax.random.key(1))
  assert dead.sum() == CODES - 1
  np.testing.assert_array_equal(first.embedding, again.embedding)
  assert (first.embedding != other.embedding).any()
  assert len(np.unique(first.embedding[1:], axis=0)) > 1, 'each code draws for itself'
  assert not quantization.restart_dead_codes(empty, z, 0.0, jax.random.key(0))[1].any()


def test_perplexity_counts_the_codes_in_use():
  counts = jnp.array([[3.0, 3.0, 3.0, 0.0], [7.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
  np.testing.assert_allclose(quantization.perplexity(counts), [3, 1, 4], rtol=1e-5)


def test_marginals_add_up_and_no_code_is_impossible():
  positions = jnp.array([[[6.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])  # [1, 2, 4]
  log_marginals = quantization.marginals(positions)
  np.testing.assert_allclose(jnp.exp(log_marginals).sum(axis=-1), 1, rtol=1e-5)
  np.testing.assert_allclose(jnp.exp(log_marginals[0, 0, :2]), [0.75, 0.25], atol=1e-3)
  np.testing.assert_allclose(jnp.exp(log_marginals[0, 1]), 0.25, rtol=1e-5)
  chosen = jnp.array([[[0, 3]], [[2, 1]]])
  expected = [-log_marginals[0, 0, a] - log_marginals[0, 1, b] for a, b in ((0, 3), (2, 1))]
  np.testing.assert_allclose(quantization.rate(log_marginals, chosen), expected, rtol=1e-5)
  assert np.isfinite(quantization.rate(log_marginals, chosen)).all()
