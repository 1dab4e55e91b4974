"""The depthwise convolution of a CPU, and the shapes of the network."""

import jax
import numpy as np
import pytest

from models import efficientnet_lite
from models.efficientnet_lite import LITE0, Depthwise, EfficientNetLite

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('side', [3, 5])
@pytest.mark.parametrize('shape', [(8, 8), (7, 10), (2, 1)])
def test_sums_of_shifted_images_are_a_grouped_convolution(shape, side, stride):
  x = RNG.standard_normal((2, *shape, 6)).astype(np.float32)
  kernel = RNG.standard_normal((side, side, 6)).astype(np.float32)
  expected = efficientnet_lite._grouped(x, kernel, stride)
  found = efficientnet_lite._shifted_sums(x, kernel, stride)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  bias = RNG.standard_normal(6).astype(np.float32)
  layer = Depthwise(side, stride).apply({'params': {'kernel': kernel, 'bias': bias}}, x)
  np.testing.assert_allclose(layer, expected + bias, atol=1e-5)


def test_lite0_has_as_many_parameters_as_are_published():
  """4.65 million, of which 42,016 are of batch normalisations that are folded into biases."""
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  shapes = jax.eval_shape(EfficientNetLite().init, jax.random.key(0), images)
  found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  channels = sum(leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
                 if path[-1].key == 'bias') - 1000  # fmt: skip
  # A folded normalisation leaves one of its scale and shift.
  assert found + channels == 4_652_008
  assert sum(stage.blocks for stage in LITE0) == 16
