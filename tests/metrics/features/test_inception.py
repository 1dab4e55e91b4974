"""Inception-v3 as FID is defined by it, against the package pytorch-fid with random weights.

It needs PyTorch, the torchvision that belongs to it, and pytorch-fid.
"""

import jax
import numpy as np
import pytest

from errors import UserError
from metrics.features import inception
from metrics.features.inception import FILE, Inception, parameters_of
from models.inception import InceptionV3


@pytest.fixture(scope='module')
def fid():
  """PyTorch, pytorch-fid's network, and the same with its classes; statistics are random."""
  torch = pytest.importorskip('torch', reason='needs PyTorch, an extra')
  try:
    torchvision = pytest.importorskip('torchvision', reason='needs torchvision')
  except RuntimeError as error:
    pytest.skip(f'this torchvision was built for another PyTorch: {error}')
  package = pytest.importorskip('pytorch_fid.inception', reason='needs the package pytorch-fid')
  torch.manual_seed(0)
  plain = torchvision.models.inception_v3(
    num_classes=1008, aux_logits=False, weights=None, init_weights=False
  )
  state = plain.state_dict()
  for name, tensor in state.items():
    if name.endswith('running_var'):
      tensor.uniform_(0.02, 0.1)
    elif name.endswith('running_mean') or name.endswith('bn.bias'):
      tensor.normal_(0, 0.1)
    elif name.endswith('bn.weight'):
      tensor.uniform_(0.5, 1.5)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(package, 'load_state_dict_from_url', lambda *_, **__: state)
    return torch, package.InceptionV3().eval(), package.fid_inception_v3().eval()


@pytest.mark.parametrize('shape', [(28, 28, 1), (64, 48, 3), (320, 350, 3)])
def test_features_and_classes_are_those_of_pytorch_fid(fid, shape):
  torch, network, with_classes = fid
  levels = np.random.default_rng(0).integers(0, 256, (2, *shape))
  images = levels.astype(np.float32) / 255
  colour = torch.from_numpy(images.repeat(3 // shape[-1], -1)).permute(0, 3, 1, 2)
  with torch.no_grad():
    features = network(colour)[0][:, :, 0, 0]
    logits = with_classes.fc(features)
  params = parameters_of({n: t.numpy() for n, t in with_classes.state_dict().items()})
  found = jax.jit(Inception().extract)(params, images)
  assert found.features.shape == (2, 2048) and found.probabilities.shape == (2, 1008)
  # Neither vanishing nor the same for all images and channels.
  spread = features.std(0)
  assert features.abs().max() > 0.1 and spread.max() > 0.01
  np.testing.assert_allclose(found.features, features, atol=1e-4 * float(features.abs().max()))
  np.testing.assert_allclose(found.probabilities, logits.softmax(-1), atol=1e-4)


def test_the_converted_parameters_are_all_those_of_the_network(fid):
  params = parameters_of({n: t.numpy() for n, t in fid[2].state_dict().items()})
  images = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
  expected = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)['params']
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)


def test_images_are_read_as_from_files_of_256_levels(monkeypatch):
  """Which values reach the network, whatever its parameters."""
  monkeypatch.setattr(inception, 'InceptionV3', lambda: _Passes())
  levels = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 1)).astype(np.float32)
  noise = np.random.default_rng(1).uniform(-0.49, 0.49, levels.shape).astype(np.float32)
  found = Inception().extract({}, (levels + noise) / 255).features
  np.testing.assert_allclose(found, (levels / 255).repeat(3, -1), atol=1e-6)


class _Passes:
  """Instead of the network: the images themselves."""

  def apply(self, variables, images):
    return images, images


def test_images_become_smaller_without_antialiasing(monkeypatch):
  """In the middle of four pixels is their mean, and what lies between is left out."""
  monkeypatch.setattr(inception, 'InceptionV3', lambda: _Passes())
  levels = np.random.default_rng(0).integers(0, 256, (1, 1196, 1196, 1)).astype(np.float32)
  found = np.asarray(Inception().extract({}, levels / 255).features)[0, :, :, 0]
  inner = levels[0, :, :, 0].reshape(299, 4, 299, 4)[:, 1:3, :, 1:3].mean((1, 3)) / 255
  np.testing.assert_allclose(found, inner, atol=1e-5)


def test_without_weights_one_sentence_names_the_command(tmp_path, monkeypatch):
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path))
  for read in (lambda: Inception().parameters, lambda: Inception().checksum):
    with pytest.raises(UserError, match=r'not in the cache; fetch.*tools.import_inception'):
      read()
  (tmp_path / 'features').mkdir()
  (tmp_path / 'features' / FILE).write_bytes(b'other')
  with pytest.raises(UserError, match=r'is damaged or another file.*must begin with 6726825d'):
    _ = Inception().parameters


def test_images_of_two_channels_are_refused():
  images = jax.ShapeDtypeStruct((2, 32, 32, 2), np.float32)
  with pytest.raises(ValueError, match=r'takes gray or colour images.*and these have 2'):
    jax.eval_shape(Inception().extract, {}, images)
