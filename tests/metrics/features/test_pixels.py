"""Features that are pixels, by hand."""

import jax
import numpy as np
import pytest

from metrics.features.pixels import BlockMeans, Pixels


def test_block_means_by_hand():
  images = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 1)
  found = jax.jit(BlockMeans(side=2).extract)({}, images).features
  np.testing.assert_allclose(found, [[2.5, 4.5, 10.5, 12.5], [18.5, 20.5, 26.5, 28.5]])


def test_block_means_crop_and_keep_colours_apart():
  images = np.random.default_rng(0).random((3, 7, 5, 2)).astype(np.float32)
  found = BlockMeans(side=2).extract({}, images).features
  by_hand = [
    images[:, r : r + 3, c : c + 2, colour].mean(axis=(1, 2))
    for r in (0, 3)
    for c in (0, 2)
    for colour in (0, 1)
  ]
  np.testing.assert_allclose(found, np.stack(by_hand, axis=1), rtol=1e-6)


def test_pixels_are_the_image_row_by_row():
  images = np.random.default_rng(0).random((3, 4, 5, 2)).astype(np.float32)
  np.testing.assert_array_equal(Pixels().extract({}, images).features, images.reshape(3, 40))


def test_labels_tell_spaces_apart():
  assert [Pixels().label, BlockMeans(14).label, BlockMeans(7).label] == [
    'pixels', 'pixels14', 'pixels7',
  ]  # fmt: skip
  assert repr(BlockMeans(14)) != repr(BlockMeans(7))


def test_a_side_that_cannot_be():
  with pytest.raises(ValueError, match=r"side=6 must be from 1 to the image's 5 pixels"):
    BlockMeans(side=6).extract({}, np.zeros((1, 8, 5, 1)))
