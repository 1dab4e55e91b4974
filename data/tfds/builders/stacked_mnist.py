"""stacked_mnist: three digits are the channels of an image, of 1,000 classes (Metz et al. 2017)."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from data.tfds import idx, raw_files
from data.tfds.builders import mnist, mnist5k

CLASSES = 1000
# Images of each class in a split.
EACH = {'train': 50, 'test': 10}


class Digits(NamedTuple):
  """Digits that are stacked.

  Attributes:
    images: uint8 [N, 28, 28].
    labels: integers [N] in [0, 10), each at least once.
  """

  images: np.ndarray
  labels: np.ndarray


def of_mnist5k(split: str, download_dirs: Sequence[pathlib.Path]) -> Digits:
  """Returns the digits of a split of mnist5k."""
  del download_dirs
  images, labels = mnist5k.read_digits()
  chosen = mnist5k.is_test(labels) == (split == 'test')
  return Digits(images[chosen], labels[chosen])


def of_mnist(split: str, download_dirs: Sequence[pathlib.Path]) -> Digits:
  """Returns the digits of a split of mnist, whose raw files are found or downloaded as for that."""
  images, labels = (
    idx.read(raw_files.locate(mnist.MNIST.RAW[f'{split}_{part}'], 'mnist', download_dirs))
    for part in ('images', 'labels')
  )
  return Digits(images, labels)


# Where digits come from, by the name of the configuration; the first is the default.
SOURCES: Mapping[str, Callable[[str, Sequence[pathlib.Path]], Digits]] = {
  'mnist5k': of_mnist5k,
  'mnist': of_mnist,
}


class StackedMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """50,000 training and 10,000 test images, 50 and 10 of each class."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name, description=f'Digits of {name}.') for name in SOURCES
  ]
  download_dirs: Sequence[pathlib.Path] = ()  # set by the caller that prepares it

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'image': tfds.features.Image(shape=(28, 28, 3)),
      'label': tfds.features.ClassLabel(num_classes=CLASSES),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=(
        'Three digits, drawn at random, are the channels of an image; read as a number they are '
        'its class. All classes are equally frequent. Digits of the training and of the test split '
        'are those of the source.'
      ),
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('image', 'label'),
      homepage='https://arxiv.org/abs/1611.02163',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    folders = self.download_dirs or (pathlib.Path(dl_manager.download_dir),)
    digits_of = SOURCES[self.builder_config.name]
    return {
      split: self._generate_examples(digits_of(split, folders), each, seed)
      for seed, (split, each) in enumerate(EACH.items())
    }

  def _generate_examples(self, digits: Digits, each: int, seed: int) -> Iterator:
    labels, rows = drawn(digits.labels, each, seed)
    for key, (label, channels) in enumerate(zip(labels, rows)):
      image = np.ascontiguousarray(digits.images[channels].transpose(1, 2, 0))
      yield key, {'image': PIL.Image.fromarray(image), 'label': int(label)}


def drawn(labels: np.ndarray, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws the digits of every class, with replacement.

  Args:
    labels: integers [M] in [0, 10), the labels of the digits.
    each: images of each class.
    seed: of the draw.

  Returns:
    The classes int [1000 · each] of the images, and int [1000 · each, 3], which digits they are.
  """
  classes = np.tile(np.arange(CLASSES), each)
  digits = classes[:, None] // [100, 10, 1] % 10
  counts = np.bincount(labels, minlength=10)
  first = np.cumsum(counts) - counts
  order = np.argsort(labels, kind='stable')
  within = np.random.default_rng(seed).integers(counts[digits])
  return classes, order[first[digits] + within]
