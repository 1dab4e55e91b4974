"""Three digits of the label, in the order of the channels, from either source."""

import numpy as np
import pytest

import errors
from data import source
from data.tfds import raw_files
from data.tfds.builders import mnist, mnist5k, stacked_mnist
from tests.data.tfds.test_builders import put, small_mnist


@pytest.fixture
def few(monkeypatch):
  monkeypatch.setattr(stacked_mnist, 'EACH', {'train': 2, 'test': 1})


def test_classes_and_digits_by_hand():
  labels = np.tile(np.arange(9, -1, -1), 3)
  classes, rows = stacked_mnist.drawn(labels, 4, 0)
  assert classes.shape == (4000,) and rows.shape == (4000, 3)
  np.testing.assert_array_equal(np.bincount(classes), 4)
  np.testing.assert_array_equal(labels[rows] @ [100, 10, 1], classes)
  np.testing.assert_array_equal(np.unique(rows), np.arange(30))  # Every digit is drawn.
  again = stacked_mnist.drawn(labels, 4, 0)[1]
  assert (rows == again).all() and (rows != stacked_mnist.drawn(labels, 4, 1)[1]).any()
  # The three of an image, and those of two images of a class, are drawn independently.
  assert 0.2 < np.mean(rows[:1000] == rows[1000:2000]) < 0.5


def test_from_mnist5k(few, tmp_path):
  images, labels = mnist5k.read_digits()
  test = mnist5k.is_test(labels)
  for split, number, chosen in (('train', 2000, ~test), ('test', 1000, test)):
    got = source.open_source('stacked_mnist', split, str(tmp_path))
    assert got.spec.features['image'] == ((28, 28, 3), 'uint8')
    assert (got.spec.n, got.spec.num_classes) == (number, 1000)
    examples = got.read(range(number))
    np.testing.assert_array_equal(np.bincount(examples['label']), number // 1000)
    known = {image.tobytes(): label for image, label in zip(images[chosen], labels[chosen])}
    for channel, place in enumerate((100, 10, 1)):
      digits = examples['image'][..., channel]
      found = [known[digit.tobytes()] for digit in digits]
      np.testing.assert_array_equal(found, examples['label'] // place % 10)


def test_from_mnist_and_which_is_meant_without_a_name(few, tmp_path, monkeypatch):
  files, arrays = small_mnist(monkeypatch, 30)
  names = {key: entry.filename for key, entry in mnist.MNIST.RAW.items()}
  put(tmp_path / 'downloads' / 'manual' / 'mnist', files, names)
  with pytest.raises(errors.UserError, match=r'makes no configuration "mnst".*"mnist"'):
    source.open_source('stacked_mnist/mnst', 'train', str(tmp_path))
  monkeypatch.setattr(stacked_mnist, 'EACH', {'train': 2})  # Its few test digits lack classes.
  got = source.open_source('stacked_mnist/mnist', 'train', str(tmp_path))
  known = {digit.tobytes() for digit in arrays['train_images']}

  def stacks_them(found):
    return [digit.tobytes() in known for digit in found.read([5])['image'][0].transpose(2, 0, 1)]

  assert stacks_them(got) == [True] * 3
  # The first source is meant, though only the other one is there.
  default = source.open_source('stacked_mnist', 'train', str(tmp_path))
  assert stacks_them(default) == [False] * 3
  again = source.open_source('stacked_mnist/mnist', 'train', str(tmp_path))
  assert again.spec.identity == got.spec.identity != default.spec.identity


def test_the_raw_files_of_mnist_are_asked_for(tmp_path, monkeypatch):
  def missing(raw, dataset, folders):
    raise errors.UserError(f'{dataset} {raw.filename}')

  monkeypatch.setattr(raw_files, 'locate', missing)
  with pytest.raises(errors.UserError, match='mnist train-images'):
    source.open_source('stacked_mnist/mnist', 'train', str(tmp_path))
