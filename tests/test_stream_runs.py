"""Runs on streamed data: the same from any position, and from arrays on disk or records alike."""

import io

import numpy as np
import PIL.Image
import pytest

from configs import mlp
from engine import loop
from tests import runs
from tests.data.tiny_sets import prepare


def write(root):
  """Prepares 41 images of two classes, of which one is cut off."""
  import tensorflow_datasets as tfds

  features = {
    'image': tfds.features.Image(shape=(4, 4, 1)),
    'label': tfds.features.ClassLabel(num_classes=2),
  }
  generator = np.random.default_rng(0)
  pictures = []
  for _ in range(41):
    file = io.BytesIO()
    PIL.Image.fromarray(generator.integers(0, 256, (4, 4), np.uint8)).save(file, 'PNG')
    pictures.append(file.getvalue())
  cut = [*pictures[:17], pictures[17][:-30], *pictures[18:]]
  splits = {
    split: [{'image': io.BytesIO(content), 'label': i % 2} for i, content in enumerate(contents)]
    for split, contents in (('train', cut), ('test', pictures[:16]))
  }
  prepare(root, 'some', features, splits)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  write(folder)
  return str(folder)


def train(root, workdir, *steps, **changed):
  """Trains up to each of the steps, one call after another, and returns the folder."""
  for last in steps:
    config = runs.small(mlp.get_config('some'))
    config.data.update(data_dir=root, batch_size=6, resident_mb=0, corrupt='skip', order_block=5)
    config.data.update(changed)
    config.optimizer.model.schedule.name = 'constant'  # the same at each length
    config.train.update(steps=last, epochs=0.0)
    loop.train(config, str(workdir))
  return workdir


def test_where_a_streamed_run_was_cut_changes_no_bit(root, tmp_path, capsys):
  """40 examples that can be read, and 20 steps of 6: three epochs, in blocks of 5."""
  whole = train(root, tmp_path / 'whole', 20)
  printed = capsys.readouterr()
  assert 'some train: 40 examples' in printed.out
  assert '(without 1 that cannot be read, config.data.corrupt=skip)' in printed.out
  assert 'left out of some train: 1 of 41 examples' in printed.err
  cut = train(root, tmp_path / 'cut', 3, 4, 11, 20)
  assert 'resumed  from step 11 of 20' in capsys.readouterr().out
  runs.assert_same_bits(whole, cut)
  decoded = train(root, tmp_path / 'decoded', 20, decoded_mb=0)
  runs.assert_same_bits(whole, decoded)
  # The order is another without blocks, so that the above does not agree by itself.
  other = train(root, tmp_path / 'other', 20, order_block=0)
  with pytest.raises(AssertionError):
    runs.assert_same_bits(whole, other)


def test_resident_and_streamed_see_the_same_batches(root, tmp_path):
  streamed = train(root, tmp_path / 'streamed', 8)
  resident = train(root, tmp_path / 'resident', 8, resident_mb=1)
  ours, theirs = runs.leaves(streamed), runs.leaves(resident)
  for name, values in ours.items():
    if values.dtype.kind == 'f':
      np.testing.assert_allclose(values, theirs[name], atol=1e-5, err_msg=name)
