"""diabetes: 442 patients of Efron et al. 2004, the table inside scikit-learn; no network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_TEST_EVERY = 5
_SEX = 1  # column of the table


class Diabetes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """354 training and 88 test patients: ten baseline measures, and the disease's course in a year.

  `sex` (0 or 1) stands beside the inputs too, so that there are figures for each sex.
  """

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'inputs': tfds.features.Tensor(shape=(10,), dtype=np.float32),
      'sex': tfds.features.Scalar(np.int32),
      'target': tfds.features.Scalar(np.float32),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='Diabetes data of "Least Angle Regression"; every fifth patient is a test.',
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('inputs', 'target'),
      homepage='https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    from sklearn import datasets

    table = datasets.load_diabetes(scaled=False)
    test = np.arange(len(table.target)) % _TEST_EVERY == _TEST_EVERY - 1
    return {
      'train': self._generate_examples(table.data[~test], table.target[~test]),
      'test': self._generate_examples(table.data[test], table.target[test]),
    }

  def _generate_examples(self, rows: np.ndarray, targets: np.ndarray) -> Iterator:
    for key, (row, target) in enumerate(zip(rows, targets)):
      yield (
        key,
        {
          'inputs': row.astype(np.float32),
          'sex': int(row[_SEX]) - 1,
          'target': float(target),
        },
      )
