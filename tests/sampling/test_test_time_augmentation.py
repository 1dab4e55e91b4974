"""Views against arrays moved by hand."""

import jax.numpy as jnp
import numpy as np

from sampling.test_time_augmentation import views_of


def test_views_are_moved_and_mirrored():
  image = jnp.arange(1.0, 13.0).reshape(3, 4, 1)
  images = jnp.stack([image, 2 * image])
  views = views_of(images, mirror=True, shift=1)
  assert views.shape == (10, 2, 3, 4, 1)
  expected = np.zeros((5, 3, 4))
  plain = np.asarray(image[..., 0])
  expected[0] = plain
  expected[1, :2], expected[2, 1:] = plain[1:], plain[:2]
  expected[3, :, :3], expected[4, :, 1:] = plain[:, 1:], plain[:, :3]
  np.testing.assert_array_equal(views[:5, 0, ..., 0], expected)
  np.testing.assert_array_equal(views[5:, 1, ..., 0], 2 * expected[..., ::-1])
  assert views_of(images, mirror=False, shift=0).shape == (1, 2, 3, 4, 1)
