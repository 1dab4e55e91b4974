"""MLP, CNN and residual network against the same maps written with linen and jax.lax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models.cnn import CNN
from models.mlp import ACTIVATIONS, MLP, activation
from models.resnet import Block, ResNet

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))


def plain_conv(x, kernel, stride=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def test_cnn_is_convolution_activation_pool():
  model = CNN(channels=(4, 6), kernel=3, widths=(5,), activation='relu', outputs=7)
  variables = jax.jit(lambda: model.init(KEY, IMAGES, train=False))()
  params = jax.tree.map(lambda p: p + 0.1, variables['params'])
  x = 2 * IMAGES - 1
  for name in ('conv_0', 'conv_1'):
    x = nn.relu(plain_conv(x, params[name]['kernel']) + params[name]['bias'])
    x = nn.max_pool(x, (2, 2), (2, 2))
  x = x.reshape(3, -1)
  x = nn.relu(x @ params['hidden_0']['kernel'] + params['hidden_0']['bias'])
  wanted = x @ params['output']['kernel'] + params['output']['bias']
  got = jax.jit(lambda p: model.apply({'params': p}, IMAGES, train=True))(params)
  assert got.shape == (3, 7) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_cnn_refuses_images_that_pools_use_up():
  model = CNN(channels=(4,) * 4, kernel=3, widths=(), activation='relu')
  with pytest.raises(UserError, match='4 pools leave nothing of 8 × 8'):
    jax.eval_shape(lambda: model.init(KEY, IMAGES, train=False))


def normalised(x, params):
  mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
  return (x - mean) / jnp.sqrt(variance + 1e-5) * params['batch']['scale'] + params['batch']['bias']


@pytest.mark.parametrize(('channels', 'stride'), [(4, 1), (6, 1), (6, 2)])
def test_block_is_the_pre_activation_block(channels, stride):
  x = jax.random.normal(KEY, (3, 8, 8, 4))
  block = Block(channels, stride, 'relu', jnp.float32)
  variables = jax.jit(lambda: block.init(KEY, x, train=False))()
  params = jax.tree.map(lambda p: p + 0.05, variables['params'])
  y = nn.relu(normalised(x, params['norm_0']))
  shortcut = x
  if channels != 4:
    shortcut = plain_conv(y, params['shortcut']['kernel'], stride)
  else:
    assert 'shortcut' not in params
  y = nn.relu(normalised(plain_conv(y, params['conv_0']['kernel'], stride), params['norm_1']))
  wanted = shortcut + plain_conv(y, params['conv_1']['kernel'])
  got, changed = jax.jit(
    lambda p: block.apply(
      {'params': p, 'batch_stats': variables['batch_stats']}, x, train=True, mutable=['batch_stats']
    )
  )(params)
  np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
  # The running average moves a tenth of the way to the batch's.
  np.testing.assert_allclose(
    changed['batch_stats']['norm_0']['batch']['mean'], 0.1 * x.mean((0, 1, 2)), atol=1e-5
  )


def test_resnet_has_the_stages_asked_for():
  model = ResNet(stem=4, widths=(4, 8), blocks=(2, 1), activation='relu', outputs=5)
  shapes = jax.eval_shape(lambda: model.init(KEY, IMAGES, train=False))['params']
  assert {name for name in shapes if name.startswith('stage')} == {
    'stage_0_block_0', 'stage_0_block_1', 'stage_1_block_0'
  }  # fmt: skip
  assert 'shortcut' in shapes['stage_1_block_0'] and 'shortcut' not in shapes['stage_0_block_1']
  assert shapes['output']['kernel'].shape == (8, 5)
  variables = jax.jit(lambda: model.init(KEY, IMAGES, train=False))()
  got = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, IMAGES)
  assert got.shape == (3, 5) and bool(jnp.isfinite(got).all())
  with pytest.raises(UserError, match='blocks=\\(1,\\) must hold one number'):
    jax.eval_shape(lambda: model.clone(blocks=(1,)).init(KEY, IMAGES, train=False))


def test_mlp_normalises_the_columns_of_a_table():
  table = jnp.array([[1.0, 100.0], [2.0, 300.0], [3.0, 500.0]])
  model = MLP(widths=(), activation='relu', normalise=True, outputs=2)
  variables = model.init(KEY, table, train=False)
  got, _ = model.apply(variables, table, train=True, mutable=['batch_stats'])
  wanted = (table - table.mean(0)) / jnp.sqrt(table.var(0) + 1e-5)
  np.testing.assert_allclose(got, wanted @ variables['params']['output']['kernel'], rtol=1e-4)
  linear = MLP(widths=(), activation='relu', outputs=2)
  assert set(linear.init(KEY, table, train=False)) == {'params'}


def test_mlp_drops_units_in_training_only():
  model = MLP(widths=(200,), activation='tanh', dropout=0.5, outputs=3)
  variables = model.init(KEY, IMAGES, train=False)
  run = lambda train, key: model.apply(variables, IMAGES, train=train, rngs={'dropout': key})  # noqa: E731
  assert (run(False, KEY) == run(False, jax.random.key(2))).all()
  assert (run(True, KEY) != run(True, jax.random.key(2))).any()


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_an_activation_maps_every_number_by_itself(name):
  x = jnp.linspace(-3, 3, 12).reshape(2, 6)
  got = activation(name)(x)
  if name == 'glu':
    np.testing.assert_allclose(got, x[:, :3] * jax.nn.sigmoid(x[:, 3:]), rtol=1e-6)
    return
  assert got.shape == x.shape and got.dtype == x.dtype and bool(jnp.isfinite(got).all())
  np.testing.assert_allclose(activation(name)(x[1, 2:3]), got[1, 2:3], rtol=1e-6)


@pytest.mark.parametrize(
  'name', ['one_hot', 'logsumexp', 'standardize', 'softmax', 'log1mexp', 'initializers', 'rleu']
)
def test_what_is_no_activation(name):
  with pytest.raises(UserError, match=f'activation={name} is unknown.*; there are: relu, leaky_re'):
    activation(name)


def test_a_gate_needs_two_halves():
  model = MLP(widths=(7,), activation='glu')
  with pytest.raises(UserError, match=r'activation=glu .* and 7 is odd; make widths even'):
    jax.eval_shape(lambda: model.init(KEY, IMAGES, train=False))
