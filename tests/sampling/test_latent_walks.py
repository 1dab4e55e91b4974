import jax.numpy as jnp
import numpy as np

from sampling import latent_walks


def decode(latents):
  """An 'image' [N, 1, 1, Z] that is the latent itself."""
  return latents[:, None, None, :]


def test_interpolation_goes_from_one_end_to_the_other():
  starts, ends = jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.array([[4.0, 8.0], [1.0, -1.0]])
  images = latent_walks.interpolate(decode, starts, ends, 5)
  assert images.shape == (2, 5, 1, 1, 2)
  np.testing.assert_allclose(images[0, :, 0, 0, 1], [0, 2, 4, 6, 8])
  np.testing.assert_allclose(images[:, 0, 0, 0], starts)
  np.testing.assert_allclose(images[:, -1, 0, 0], ends)


def test_a_traversal_moves_one_coordinate_a_row():
  centre, values = jnp.array([5.0, 6.0, 7.0]), jnp.array([-1.0, 1.0])
  images = latent_walks.traverse(decode, centre, jnp.array([2, 0]), values)
  assert images.shape == (2, 2, 1, 1, 3)
  np.testing.assert_allclose(images[0, :, 0, 0], [[5, 6, -1], [5, 6, 1]])
  np.testing.assert_allclose(images[1, :, 0, 0], [[-1, 6, 7], [1, 6, 7]])


def test_the_manifold_spans_the_prior_with_the_second_axis_upwards():
  images = latent_walks.manifold(decode, 4)[:, :, 0, 0]
  assert images.shape == (4, 4, 2)
  quantiles = [-1.1503, -0.3186, 0.3186, 1.1503]  # of N(0, 1) at 1/8, 3/8, 5/8, 7/8
  np.testing.assert_allclose(images[0, :, 0], quantiles, atol=1e-3)
  np.testing.assert_allclose(images[:, 0, 1], quantiles[::-1], atol=1e-3)
