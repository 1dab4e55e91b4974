"""Classes are matched by their names, wherever two data sets meet."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from data import section, source
from data.section import Data
from data.selection import match_classes
from data.transforms import OFF
from errors import UserError
from tests.data.tiny_sets import prepare

# The gray of every image of a class.
GRAY = {'cat': 10, 'dog': 100, 'bird': 200, 'fish': 250}


def write(root, name, class_names, drawn):
  """Prepares images of the classes `drawn`, in this order, split alike into train and test."""
  import tensorflow_datasets as tfds

  features = {
    'image': tfds.features.Image(shape=(4, 4, 1)),
    'label': tfds.features.ClassLabel(names=class_names),
  }
  examples = [
    {'image': PIL.Image.new('L', (4, 4), GRAY[each]), 'label': each} for each in drawn.split()
  ]
  prepare(root, name, features, {'train': examples, 'test': examples})


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('sets')
  write(root, 'a', ['cat', 'dog'], 'cat dog dog cat')
  write(root, 'b', ['dog', 'cat'], 'dog cat cat')
  write(root, 'c', ['dog', 'bird', 'cat'], 'bird dog cat cat')
  write(root, 'd', ['cat', 'fish', 'dog'], 'dog cat fish cat')
  return str(root)


def options(root, **given):
  return Data(
    **{
      **dict(
        name='a', split='train', test_name='', test_split='test', classes=(), columns=(), folds=0,
        fold=0, batch_size=1, data_dir=root, resident_mb=1, workers=0, text=None, augment=OFF,
      ),
      **given,
    }
  )  # fmt: skip


def assert_named(examples, drawn, class_names):
  """The images are those of the classes `drawn`, and so say their labels, however they are read."""
  assert examples.spec.class_names == class_names
  assert examples.spec.num_classes == len(class_names)
  for values in (examples.read(range(len(examples))), examples.load()):
    assert values['image'][:, 0, 0, 0].tolist() == [GRAY[each] for each in drawn.split()]
    assert [class_names[label] for label in values['label']] == drawn.split()
    assert values['label'].dtype == np.int32
  assert [class_names[label] for label in examples.column('label')] == drawn.split()
  assert examples.column('image')[:, 0, 0, 0].tolist() == [GRAY[each] for each in drawn.split()]


def test_joined_data_sets(root):
  both = source.open_source('a+b', 'train', root)
  assert_named(both, 'cat dog dog cat dog cat cat', ('cat', 'dog'))
  again = source.open_source('b+a+b', 'train', root)
  assert_named(again, 'dog cat cat cat dog dog cat dog cat cat', ('dog', 'cat'))
  dogs = source.open_source('a+b', 'train', root, classes=(1,))
  assert_named(dogs, 'dog dog dog', ('dog',))


@pytest.mark.parametrize(
  ('given', 'drawn', 'class_names'),
  [
    (dict(test_name='b'), 'dog cat cat', ('cat', 'dog')),
    (dict(name='b', test_name='a'), 'cat dog dog cat', ('dog', 'cat')),
    (dict(test_name='b', classes=(1,)), 'dog', ('dog',)),
    (dict(name='b', test_name='a', classes=(1, 0)), 'cat dog dog cat', ('cat', 'dog')),
    (dict(name='c', test_name='a', classes=(2, 0)), 'cat dog dog cat', ('cat', 'dog')),
    (dict(name='c', test_name='d', classes=(0, 2)), 'dog cat cat', ('dog', 'cat')),
  ],
)
def test_a_data_set_to_test_on(root, given, drawn, class_names):
  data = options(root, **given)
  spec = section.open_training(data).spec
  assert_named(section.open_testing(data, spec), drawn, class_names)
  assert_named(section.open_evaluated(data, spec, 'test[:100%]', ''), drawn, class_names)


def test_data_prepared_again_in_another_order_after_a_run(root):
  spec = section.open_training(options(root)).spec
  for data in (options(root, name='b'), options(root, name='b', folds=3)):
    trained_on = section.open_evaluated(data, spec, 'train', '')
    assert_named(trained_on, 'dog cat cat' if not data.folds else 'cat cat', ('cat', 'dog'))
  assert_named(section.open_testing(data, spec), 'dog', ('cat', 'dog'))  # the held-out fold


def test_names_that_differ_are_refused(root):
  message = r"classes of d and c .*only c has 'bird', only d has 'fish'; use"
  with pytest.raises(UserError, match=message):
    source.open_source('c+d', 'train', root)
  data = options(root, name='c', test_name='d')
  spec = section.open_training(data).spec
  with pytest.raises(UserError, match=message):
    section.open_testing(data, spec)
  lacking = dataclasses.replace(data, classes=(1,))
  spec = section.open_training(lacking).spec
  with pytest.raises(UserError, match=r"only c has 'bird', only d has none"):
    section.open_testing(lacking, spec)
  twice = source.open_source('a', 'train', root)
  with pytest.raises(UserError, match=r"only a has 'cow', only a has 'dog'"):
    match_classes(twice, twice.spec._replace(class_names=('cat', 'cow')))


def test_training_data_without_classes_is_tested_on_any(root):
  spec = source.open_source('a', 'train', root).spec
  unlabelled = spec._replace(num_classes=0, features={'image': spec.features['image']})
  tested = section.open_testing(options(root, test_name='d'), unlabelled)
  assert_named(tested, 'dog cat fish cat', ('cat', 'fish', 'dog'))


def test_kinds_of_text(tmp_path):
  import tensorflow_datasets as tfds

  for name, kinds in (('one', ['verb', 'noun']), ('two', ['noun', 'verb'])):
    features = {
      'text': tfds.features.Text(),
      'kind_start': tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding='zlib'),
      'kind': tfds.features.Sequence(tfds.features.ClassLabel(names=kinds)),
    }
    texts = [('go home', ['verb', 'noun'], [0, 2]), ('dogs', ['noun'], [0])]
    examples = [
      {'text': text, 'kind_start': np.array(starts, np.int32), 'kind': each}
      for text, each, starts in texts
    ]
    prepare(tmp_path, name, features, {'train': examples})
  both = source.open_source('one+two', 'train', str(tmp_path))
  assert both.spec.class_names == ('verb', 'noun')
  found = [each.tolist() for each in both.read(range(4))['kind']]
  assert found == [[0, 1], [1], [0, 1], [1]]
