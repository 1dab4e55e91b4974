"""A run goes on with the examples that it began with, and with no others."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from configs import mlp
from engine import loop
from errors import UserError
from tests.data.tiny_sets import prepare
from tests.runs import small


def write(root, labels):
  import tensorflow_datasets as tfds

  features = {
    'image': tfds.features.Image(shape=(4, 4, 1)),
    'label': tfds.features.ClassLabel(num_classes=2),
  }
  images = [PIL.Image.new('L', (4, 4), 100 * (i % 2)) for i in range(len(labels))]
  examples = [{'image': image, 'label': label} for image, label in zip(images, labels)]
  shutil.rmtree(root / 'some', ignore_errors=True)
  prepare(root, 'some', features, {'train': examples, 'test': examples})


def test_a_run_does_not_go_on_with_changed_data(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'cache'))
  labels = np.arange(16) % 2
  workdir = tmp_path / 'run'

  def train(steps):
    config = small(mlp.get_config('some'))
    config.data.data_dir = str(tmp_path)
    config.data.batch_size = 4
    config.train.update(steps=steps, epochs=0.0)
    loop.train(config, str(workdir))
    return json.loads((workdir / 'run.json').read_text())['data']['identity']

  write(tmp_path, labels)
  first = train(2)
  write(tmp_path, 1 - labels)
  message = r'examples of some train are not those .* \(as many, but others\); .*data_dir'
  with pytest.raises(UserError, match=message):
    train(4)
  described = json.loads((workdir / 'run.json').read_text())
  assert described['data']['identity'] == first and described['steps'] == 2
  write(tmp_path, labels[:12])
  with pytest.raises(UserError, match=r'\(16 then, 12 now\)'):
    train(4)
  write(tmp_path, labels)  # other files, the same examples
  capsys.readouterr()
  assert train(4) == first
  assert 'resumed  from step 2 of 4' in capsys.readouterr().out
