"""cifar10 as TFDS has it, the same to the last pixel, but prepared without TensorFlow."""

import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from data.tfds import raw_files

_FOLDER = 'cifar-10-batches-bin/'
_TRAIN = tuple(f'data_batch_{part}.bin' for part in range(1, 6))
_TEST = ('test_batch.bin',)
_RECORD = 1 + 3 * 32 * 32  # the label, then red, green and blue planes


class Cifar10(raw_files.RawBuilder, skip_registration=True):
  """50,000 training and 10,000 test colour pictures, 32 x 32."""

  VERSION = tfds.core.Version('3.0.2')
  RAW = {
    'archive': raw_files.Raw(
      'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    )
  }

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'id': tfds.features.Text(),
      'image': tfds.features.Image(shape=(32, 32, 3)),
      'label': tfds.features.ClassLabel(num_classes=10),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='60,000 32x32 colour pictures in 10 classes, 6,000 of each.',
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('image', 'label'),
      homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    files = read_archive(self.raw('archive', dl_manager.download_dir))
    names = files['batches.meta.txt'].decode().split('\n')
    self.info.features['label'].names = [name for name in names if name]
    return {
      'train': self._generate_examples('train', [files[name] for name in _TRAIN]),
      'test': self._generate_examples('test', [files[name] for name in _TEST]),
    }

  def _generate_examples(self, prefix: str, parts: Sequence[bytes]) -> Iterator:
    rows = np.frombuffer(b''.join(parts), np.uint8).reshape(-1, _RECORD)
    for key, row in enumerate(rows):
      image = PIL.Image.fromarray(row[1:].reshape(3, 32, 32).transpose(1, 2, 0))
      text = f'{prefix}_{key:05d}'
      yield key, {'id': text, 'image': image, 'label': int(row[0])}


def read_archive(path: pathlib.Path) -> dict[str, bytes]:
  """Reads the files of the CIFAR-10 binary archive, by name, in one pass."""
  with tarfile.open(path) as archive:
    return {
      member.name.removeprefix(_FOLDER): archive.extractfile(member).read()
      for member in archive
      if member.isfile()
    }
