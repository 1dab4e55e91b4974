"""mnist as TFDS has it, the same to the last pixel, but prepared without TensorFlow."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data.tfds import idx, raw_files

_URL = 'https://storage.googleapis.com/cvdf-datasets/mnist/'


class MNIST(raw_files.RawBuilder, skip_registration=True):
  """60,000 training and 10,000 test digits."""

  VERSION = tfds.core.Version('3.0.1')
  RAW = {
    'train_images': raw_files.Raw(
      _URL + 'train-images-idx3-ubyte.gz',
      '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    ),
    'train_labels': raw_files.Raw(
      _URL + 'train-labels-idx1-ubyte.gz',
      '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    ),
    'test_images': raw_files.Raw(
      _URL + 't10k-images-idx3-ubyte.gz',
      '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    ),
    'test_labels': raw_files.Raw(
      _URL + 't10k-labels-idx1-ubyte.gz',
      'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
    ),
  }

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(num_classes=10),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='The MNIST database of handwritten digits.',
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('image', 'label'),
      homepage='http://yann.lecun.com/exdb/mnist/',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    files = {key: self.raw(key, dl_manager.download_dir) for key in self.RAW}
    return {
      'train': self._generate_examples(files['train_images'], files['train_labels']),
      'test': self._generate_examples(files['test_images'], files['test_labels']),
    }

  def _generate_examples(self, images: Any, labels: Any) -> Iterator:
    return idx.examples(images, labels)
