"""fashion_mnist as TFDS has it, the same to the last pixel, but prepared without TensorFlow."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data.tfds import idx, raw_files

_URL = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
_CLASSES = (
  'T-shirt/top',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle boot',
)


class FashionMNIST(raw_files.RawBuilder, skip_registration=True):
  """60,000 training and 10,000 test pictures of clothes."""

  VERSION = tfds.core.Version('3.0.1')
  RAW = {
    'train_images': raw_files.Raw(
      _URL + 'train-images-idx3-ubyte.gz',
      '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84',
    ),
    'train_labels': raw_files.Raw(
      _URL + 'train-labels-idx1-ubyte.gz',
      'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845',
    ),
    'test_images': raw_files.Raw(
      _URL + 't10k-images-idx3-ubyte.gz',
      '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
    ),
    'test_labels': raw_files.Raw(
      _URL + 't10k-labels-idx1-ubyte.gz',
      '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
    ),
  }

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(names=_CLASSES),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description="Zalando's article pictures, 10 classes, in the format of MNIST.",
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('image', 'label'),
      homepage='https://github.com/zalandoresearch/fashion-mnist',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    files = {key: self.raw(key, dl_manager.download_dir) for key in self.RAW}
    return {
      'train': self._generate_examples(files['train_images'], files['train_labels']),
      'test': self._generate_examples(files['test_images'], files['test_labels']),
    }

  def _generate_examples(self, images: Any, labels: Any) -> Iterator:
    return idx.examples(images, labels)
