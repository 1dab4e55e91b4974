"""The training images nearest to samples."""

import numpy as np

from commands.nearest_neighbours import Compared, nearest


def test_the_nearest_by_the_difference_of_the_pixels():
  random = np.random.default_rng(0)
  images = random.random((50, 4, 3, 2)).astype(np.float32)
  samples = random.random((5, 4, 3, 2)).astype(np.float32)
  samples[2] = images[41]  # a copy
  found = nearest(samples, (images[start : start + 7] for start in range(0, 50, 7)), 3)
  for i, sample in enumerate(samples):
    distances = np.sqrt(np.mean((images.astype(np.float64) - sample) ** 2, axis=(1, 2, 3)))
    order = np.argsort(distances)[:3]
    np.testing.assert_array_equal(found.indices[:, i], order)
    np.testing.assert_allclose(found.distances[:, i], distances[order], atol=1e-6)
    np.testing.assert_array_equal(found.images[:, i], images[order])
  assert found.indices[0, 2] == 41 and found.distances[0, 2] == 0


def test_fewer_images_than_neighbours():
  images = np.zeros((2, 1, 1, 1), np.float32)
  assert nearest(images, [images], 3).indices.shape == (2, 2)


def test_the_picture_has_a_column_for_each_sample():
  samples = np.zeros((4, 28, 28, 3), np.float32)
  picture = Compared(samples, nearest(samples, [samples], 3), 'some', 1).picture
  assert picture.ndim == 3 and picture.shape[2] == 3 and picture.shape[0] >= 4 * 28
