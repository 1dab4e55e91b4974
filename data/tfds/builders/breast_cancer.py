"""breast_cancer: 569 biopsies of the Wisconsin table that comes with scikit-learn; no network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_TEST_EVERY = 5


class BreastCancer(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """455 training and 114 test biopsies: 30 measures of cell nuclei; malignant or benign."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'inputs': tfds.features.Tensor(shape=(30,), dtype=np.float32),
      'label': tfds.features.ClassLabel(names=('malignant', 'benign')),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='Breast cancer Wisconsin (diagnostic); every fifth of a class is a test.',
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('inputs', 'label'),
      homepage='https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    from sklearn import datasets

    table = datasets.load_breast_cancer()
    test = np.zeros(len(table.target), bool)
    for label in (0, 1):
      test[np.flatnonzero(table.target == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return {
      'train': self._generate_examples(table.data[~test], table.target[~test]),
      'test': self._generate_examples(table.data[test], table.target[test]),
    }

  def _generate_examples(self, rows: np.ndarray, labels: np.ndarray) -> Iterator:
    for key, (row, label) in enumerate(zip(rows, labels)):
      yield key, {'inputs': row.astype(np.float32), 'label': int(label)}
