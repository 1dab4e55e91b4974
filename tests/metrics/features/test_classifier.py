"""Features of this project's own classifiers."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from data.source import open_source
from engine.build import build
from errors import UserError
from metrics.features.classifier import FOLDER, Classifier
from models.cnn import CNN

NAMES = ('fmnist-cnn', 'mnist5k-cnn')
IMAGES = np.random.default_rng(0).random((5, 28, 28, 1)).astype(np.float32)


def own_weights(folder, **changes):
  """A small network of random parameters in two files, and its parameters."""
  module = dict(channels=[4], kernel=3, widths=[8, 6], activation='silu', dropout=0.5)
  network = CNN(**module, outputs=3)
  params = network.init(jax.random.key(0), IMAGES[:, :10, :12], train=False)['params']
  flat = {
    '/'.join(key.key for key in path): np.asarray(leaf, np.float16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  np.savez(folder / 'own.npz', **flat)
  description = {
    'sha256': hashlib.sha256((folder / 'own.npz').read_bytes()).hexdigest(),
    'module': module,
    'image_shape': [10, 12, 1],
    'classes': ['a', 'b', 'c'],
    'data': {'name': 'own'},
    **changes,
  }
  (folder / 'own.json').write_text(json.dumps(description))
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), params)


def test_features_are_the_last_hidden_layer_before_its_activation(tmp_path):
  params = own_weights(tmp_path)
  extractor, images = Classifier(str(tmp_path / 'own.npz')), IMAGES[:, :10, :12]
  found = jax.jit(extractor.extract)(extractor.parameters, images)
  assert found.features.shape == (5, 6) and found.features.dtype == np.float32
  output = params['output']
  logits = nn.silu(found.features) @ output['kernel'] + output['bias']
  np.testing.assert_allclose(found.probabilities, nn.softmax(logits), atol=1e-6)
  # The network that was trained, and without dropout.
  network = CNN(channels=(4,), kernel=3, widths=(8, 6), activation='silu', outputs=3)
  expected = network.apply({'params': params}, images, train=False)
  np.testing.assert_allclose(found.probabilities, nn.softmax(expected), atol=1e-6)
  assert extractor.label == 'own'


@pytest.mark.parametrize('name', NAMES)
def test_weights_that_come_with_the_project(name):
  extractor = Classifier(name)
  found = jax.jit(extractor.extract)(extractor.parameters, IMAGES)
  assert found.features.shape == (5, 128) and found.features.dtype == np.float32
  assert found.probabilities.shape == (5, 10)
  np.testing.assert_allclose(found.probabilities.sum(axis=-1), 1, rtol=1e-5)
  assert extractor.label == name
  told = extractor.description
  assert told['train'].startswith('python train.py --config=configs/features.py:')
  assert {'seed', 'step', 'code', 'versions', 'tested'} <= told.keys()
  assert not told['code']['changed']
  assert sum((FOLDER / f'{name}{end}').stat().st_size for end in ('.npz', '.json')) < 500_000


@pytest.mark.parametrize(('name', 'least'), [('fmnist-cnn', 0.9), ('mnist5k-cnn', 0.97)])
def test_the_accuracy_on_the_test_split_is_as_it_says(name, least):
  extractor = Classifier(name)
  told = extractor.description
  data = told['data']['name']
  if data != 'mnist5k' and not (Path(os.environ.get('TFDS_DATA_DIR', '')) / data).is_dir():
    pytest.skip(f'set TFDS_DATA_DIR to a folder with {data}, prepared by TFDS')
  testing = open_source(data, told['tested']['split'], '')
  arrays, extract, right = testing.load(), jax.jit(extractor.extract), 0
  for start in range(0, len(testing), 1000):
    images = arrays['image'][start : start + 1000].astype(np.float32) / 255
    found = extract(extractor.parameters, images).probabilities
    right += int((np.argmax(found, -1) == arrays['label'][start : start + 1000]).sum())
  assert len(testing) == told['tested']['n']
  # Another machine rounds otherwise.
  assert abs(right / len(testing) - told['tested']['accuracy']) < 0.002
  assert right / len(testing) > least


@pytest.mark.parametrize('shape', [(32, 32, 1), (28, 28, 3), (28, 14, 1)])
def test_other_images_are_refused(shape):
  extractor = Classifier('fmnist-cnn')
  images = jax.ShapeDtypeStruct((2, *shape), np.float32)
  found = ' × '.join(map(str, shape))
  with pytest.raises(ValueError, match=rf'takes images of 28 × 28 × 1.* and these are {found};'):
    jax.eval_shape(extractor.extract, extractor.parameters, images)


@pytest.mark.parametrize(
  ('weights', 'said'),
  [
    ('fmnist-cn', r'config\.x: weights=fmnist-cn does not exist \(did you mean "fmnist-cnn"\?\)'),
    ('nowhere/a.npz', r'weights=nowhere/a\.npz does not exist'),
    ('nowhere/a_b.npz', r'must be a file \*\.npz whose name has no "_"'),
    ('nowhere/a.bin', r'must be a file \*\.npz'),
  ],
)
def test_weights_that_are_not_there(weights, said):
  spec = dict(name='classifier.Classifier', weights=weights)
  with pytest.raises(UserError, match=said):
    build(spec, 'metrics.features', 'config.x')


def test_damaged_weights_are_refused(tmp_path):
  own_weights(tmp_path)
  file = tmp_path / 'own.npz'
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  with pytest.raises(UserError, match=r'own\.npz is damaged or another file.*export_features'):
    _ = Classifier(str(file)).parameters


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"sha256": "0"}', 'nonsense'])
def test_a_damaged_description_is_refused(text, tmp_path):
  own_weights(tmp_path)
  (tmp_path / 'own.json').write_text(text)
  extractor = Classifier(str(tmp_path / 'own.npz'))
  for read in (lambda: extractor.parameters, lambda: extractor.checksum):
    with pytest.raises(UserError, match=r'own\.json cannot be read'):
      read()


def test_a_pickle_in_the_file_is_not_opened(tmp_path):
  own_weights(tmp_path)
  np.savez(tmp_path / 'own.npz', a=np.array([{}], dtype=object))
  description = json.loads((tmp_path / 'own.json').read_text())
  description['sha256'] = hashlib.sha256((tmp_path / 'own.npz').read_bytes()).hexdigest()
  (tmp_path / 'own.json').write_text(json.dumps(description))
  with pytest.raises(UserError, match=r'own\.npz holds no arrays \(Object arrays cannot'):
    _ = Classifier(str(tmp_path / 'own.npz')).parameters


def test_the_checksum_tells_networks_and_parameters_apart(tmp_path):
  own_weights(tmp_path)
  (tmp_path / 'other').mkdir()
  shutil.copy(tmp_path / 'own.npz', tmp_path / 'other')
  description = json.loads((tmp_path / 'own.json').read_text())
  description['module']['activation'] = 'relu'
  (tmp_path / 'other' / 'own.json').write_text(json.dumps(description))
  sums = [Classifier(str(folder / 'own.npz')).checksum for folder in (tmp_path, tmp_path / 'other')]
  assert sums[0] != sums[1]
  assert Classifier('fmnist-cnn').checksum != Classifier('mnist5k-cnn').checksum
