"""The tables of scikit-learn, as they are read back."""

import numpy as np
import pytest
from sklearn import datasets

import errors
from data import source


def test_breast_cancer_holds_every_row_once(prepared_root):
  table = datasets.load_breast_cancer()
  train, test = (
    source.open_source('breast_cancer', split, str(prepared_root)) for split in ('train', 'test')
  )
  assert (train.spec.n, test.spec.n, train.spec.num_classes) == (456, 113, 2)
  assert train.spec.class_names == ('malignant', 'benign')
  parts = [part.read(range(len(part))) for part in (train, test)]
  got = np.concatenate([np.c_[part['inputs'], part['label']] for part in parts])
  wanted = np.c_[table.data.astype(np.float32), table.target]
  np.testing.assert_array_equal(
    got[np.lexsort(got.T)], wanted[np.lexsort(wanted.T)].astype(np.float32)
  )


def test_diabetes_has_a_target_and_a_column_on_request(prepared_root):
  table = datasets.load_diabetes(scaled=False)
  train, test = (
    source.open_source('diabetes', split, str(prepared_root), columns=('sex',))
    for split in ('train', 'test')
  )
  assert train.spec.num_classes == 0
  assert train.spec.features['target'] == ((), 'float32')
  parts = [part.read(range(len(part))) for part in (train, test)]
  got = np.concatenate([np.c_[part['inputs'], part['target'], part['sex']] for part in parts])
  wanted = np.c_[table.data, table.target, table.data[:, 1] - 1].astype(np.float32)
  np.testing.assert_array_equal(got[np.lexsort(got.T)], wanted[np.lexsort(wanted.T)])
  assert parts[0]['sex'].dtype == np.int32
  plain = source.open_source('diabetes', 'train', str(prepared_root))
  assert 'sex' not in plain.spec.features and plain.spec.identity != train.spec.identity


def test_a_column_that_is_not_there(prepared_root):
  with pytest.raises(errors.UserError, match=r'columns=sez: .* \(did you mean "sex"\?\); it has'):
    source.open_source('diabetes', 'train', str(prepared_root), columns=('sez',))


def test_a_label_out_of_range_is_named(tmp_path):
  import tensorflow_datasets as tfds

  class Wrong(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      features = {
        'inputs': tfds.features.Tensor(shape=(2,), dtype=np.float32),
        'label': tfds.features.ClassLabel(num_classes=9),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {'train': [(i, {'inputs': np.zeros(2, np.float32), 'label': i}) for i in range(9)]}

    def _generate_examples(self):
      raise NotImplementedError

  builder = Wrong(data_dir=tmp_path, file_format='array_record')
  builder.download_and_prepare()
  # The data set now says that it has fewer classes than its labels need.
  path = next(tmp_path.rglob('features.json'))
  path.write_text(path.read_text().replace('"9"', '"5"'))
  got = source.open_source('wrong', 'train', str(tmp_path))
  with pytest.raises(errors.UserError, match=r'example \d of wrong train has the label [5-8], but'):
    got.read(range(9))
