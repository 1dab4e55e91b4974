"""A split string is counted as TFDS reads it, and one that TFDS refuses is refused."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import errors
from data import section, source
from data.spec import Spec
from data.tfds import splits

# Two files of the split 'train', one of 'test'.
LENGTHS = {'train': [60, 40], 'test': [7]}
# Of training data of which nothing is required.
SPEC = Spec('mnist5k', 'train', 1, {}, 0, '')


@pytest.mark.parametrize(
  ('split', 'number'),
  [
    ('train', 100),
    ('train[:10%]', 10),
    ('train[-30:]', 30),
    ('train[10:20]', 10),
    ('train[10:20%]', 10),  # a unit at either end is that of both
    ('train[2.5%:]', 98),
    ('train[:1shard]', 60),
    ('train[1shard]', 40),
    ('train+test', 107),
    ('train[:1] + test[5:]', 3),
    ('train[5:5]+test', 7),
    ('all', 107),
  ],
)
def test_number_of_examples(split, number):
  assert splits.count(split, LENGTHS) == number


@pytest.mark.parametrize(
  ('split', 'reason'),
  [
    ('', 'TFDS cannot read it'),
    ('train[:]', 'TFDS cannot read it'),
    ('train[1:2', 'TFDS cannot read it'),
    ('train[5]', 'TFDS cannot read it'),
    ('train[::2]', 'TFDS cannot read it'),
    ('train[50%:1000]', 'TFDS cannot read it'),  # 1000 is a percentage too
    ('test[:101%]', 'TFDS cannot read it'),  # rounds to all 7 examples
    ('all[:10]', 'TFDS cannot read it'),
    ('tain', 'there is no split "tain" .did you mean "train"'),
    ('train+tset[:5]', 'there is no split "tset" .did you mean "test"'),
    ('train[-1000:]', 'a bound lies beyond its end'),
    ('train[:101]', 'a bound lies beyond its end'),
    ('train[5:5]', 'it is empty'),
    ('train[:-0]', 'it is empty'),
    ('train[2shard:]', 'it is empty'),
    ('train[20:10]', 'ends before it starts'),
    ('test+train[20:19]', 'ends before it starts'),
  ],
)
def test_what_selects_nothing(split, reason):
  with pytest.raises(ValueError, match=reason):
    splits.count(split, LENGTHS)


@pytest.fixture(scope='module')
def builder(prepared_root):
  """TFDS's own builder of mnist5k."""
  import tensorflow_datasets as tfds

  return tfds.builder('mnist5k', data_dir=prepared_root)


@pytest.mark.parametrize(
  'split',
  ['train[:10%]', 'train[-1000:]', 'train[10:20]', 'train+test', 'all', 'train[99.9%:]+test[:3]'],
)
def test_tfds_reads_the_same_examples(prepared_root, builder, split):
  ours, theirs = source.open_source('mnist5k', split, str(prepared_root)), builder.as_data_source
  records = theirs(split)
  assert len(ours) == len(records)
  ends = [0, len(records) - 1]
  expected = np.stack([records[index]['image'] for index in ends])
  np.testing.assert_array_equal(ours.read(ends)['image'], expected)


@pytest.mark.parametrize('split', ['train[:]', 'train[50%:1000]', 'train[1:2', '', 'test[:1001]'])
def test_tfds_refuses_what_is_refused(prepared_root, builder, split):
  with pytest.raises(ValueError):
    builder.as_data_source(split)
  with pytest.raises(errors.UserError):
    source.open_source('mnist5k', split, str(prepared_root))


def data_of(root, **changes):
  options = dict.fromkeys([field.name for field in dataclasses.fields(section.Data)], '')
  options.update(name='mnist5k', split='train', data_dir=str(root), classes=(), columns=(), folds=0)
  return section.Data(**{**options, 'text': None, **changes})


def test_the_message_names_option_value_and_way_out(prepared_root):
  with pytest.raises(errors.UserError) as caught:
    section.open_training(data_of(prepared_root, split='tran[:10]'))
  assert str(caught.value) == (
    'config.data.split=tran[:10] selects no examples of mnist5k/1.0.0: there is no split "tran" '
    '(did you mean "train"?); choose from train (4,000), test (1,000), '
    'a slice such as "train[:90%]" or "train[100:200]", a sum such as "train+test", or "all"'
  )


@pytest.mark.parametrize(
  ('opened', 'named'),
  [
    (lambda data: section.open_testing(data, SPEC), 'config.data.test_split=test[:]'),
    (lambda data: section.open_testing(data, SPEC, 'test[:]'), '--split=test[:]'),
    (
      lambda data: section.open_evaluated(data, SPEC, 'test[:]', 'config.evaluators.a.split'),
      'config.evaluators.a.split=test[:]',
    ),
    (
      lambda data: section.open_evaluated(data, SPEC, 'test', 'config.evaluators.a.split'),
      'config.data.test_split=test[:]',
    ),
  ],
)
def test_the_option_named_is_the_one_that_was_written(prepared_root, opened, named):
  with pytest.raises(errors.UserError) as caught:
    opened(data_of(prepared_root, test_split='test[:]'))
  assert str(caught.value).startswith(f'{named} selects no examples of mnist5k/1.0.0: TFDS cannot')


CODE = """
import sys
from data.tfds import splits
splits.count(sys.argv[1], {'train': [60, 40]})
print(*(name in sys.modules for name in ('tensorflow', 'tensorflow_datasets')))
"""


@pytest.mark.parametrize(('split', 'tfds'), [('train', 'False'), ('train[:50%]', 'True')])
def test_tensorflow_is_never_imported_and_tfds_only_for_more_than_a_name(split, tfds):
  command = [sys.executable, '-c', CODE, split]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert done.stdout.split() == ['False', tfds]
