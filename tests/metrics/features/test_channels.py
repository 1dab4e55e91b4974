"""A classifier on each channel."""

import jax
import numpy as np
import pytest

from data.source import open_source
from metrics.features.channels import Channels
from metrics.features.classifier import Classifier

WEIGHTS = 'mnist5k-cnn'


def test_it_is_the_classifier_on_each_channel():
  images = np.random.default_rng(0).random((4, 28, 28, 3)).astype(np.float32)
  stacked, plain = Channels(WEIGHTS), Classifier(WEIGHTS)
  found = jax.jit(stacked.extract)(stacked.parameters, images)
  parts = [plain.extract(plain.parameters, images[..., c : c + 1]) for c in range(3)]
  np.testing.assert_allclose(
    found.features, np.concatenate([part.features for part in parts], axis=1), atol=1e-4
  )
  first, second, third = (np.asarray(part.probabilities) for part in parts)
  # Class 100 a + 10 b + c.
  for a, b, c in ((0, 0, 0), (3, 1, 7), (9, 9, 9)):
    np.testing.assert_allclose(
      found.probabilities[:, 100 * a + 10 * b + c],
      first[:, a] * second[:, b] * third[:, c],
      rtol=1e-3,
      atol=1e-9,
    )
  np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
  assert stacked.label == 'channels-mnist5k-cnn' and stacked.checksum == plain.checksum


@pytest.mark.slow  # prepares 60,000 images
def test_it_names_the_modes_of_stacked_digits():
  source = open_source('stacked_mnist', 'test[:300]', '')
  examples = source.read(range(300))
  stacked = Channels(WEIGHTS)
  images = examples['image'].astype(np.float32) / 255
  found = jax.jit(stacked.extract)(stacked.parameters, images).probabilities.argmax(axis=1)
  # Three digits, each right with about 0.97.
  assert np.mean(found == examples['label']) > 0.85


def test_too_many_classes():
  stacked = Channels(WEIGHTS)
  images = jax.ShapeDtypeStruct((1, 28, 28, 6), np.float32)
  with pytest.raises(ValueError, match='6 channels would have 1,000,000, more than 100,000'):
    jax.eval_shape(stacked.extract, stacked.parameters, images)
