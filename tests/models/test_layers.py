"""The layers have linen's parameters and results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from errors import UserError
from models import conv_vae, dcgan, layers, vqvae
from tests.models.comparison import close, operands


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('use_bias', [True, False])
@pytest.mark.parametrize(
  'ours, linen',
  [(layers.Conv, nn.Conv), (layers.ConvTranspose, nn.ConvTranspose)],
  ids=['Conv', 'ConvTranspose'],
)
def test_modules_are_linens(ours, linen, padding: str, use_bias: bool):
  x, _ = operands((7, 7), (1, 1), 6, 1)
  a, b = (
    module(5, (4, 4), strides=strides, padding=padding, use_bias=use_bias)
    for module, strides in ((ours, 2), (linen, (2, 2)))
  )
  variables = a.init(jax.random.key(3), x)
  expected = b.init(jax.random.key(3), x)
  jax.tree.map(np.testing.assert_array_equal, variables, expected)
  close(a.apply(variables, x), b.apply(expected, x))


@pytest.mark.parametrize('shape', [(3, 6), (2, 4, 6), (2, 0, 6), (6,)])
def test_dense_is_linens(shape: tuple[int, ...]):
  x = jax.random.normal(jax.random.key(0), shape)
  a, b = layers.Dense(5), nn.Dense(5)
  variables = a.init(jax.random.key(3), x)
  jax.tree.map(np.testing.assert_array_equal, variables, b.init(jax.random.key(3), x))

  def run(m):
    return jax.value_and_grad(lambda v: jnp.sum(jnp.tanh(m.apply(v, x))))(variables)

  close(run(a), run(b))


@pytest.mark.parametrize(
  'make',
  [
    lambda m, **kw: m.Dense(5, **kw),
    lambda m, **kw: m.Conv(5, (3, 3), (2, 2), **kw),
    lambda m, **kw: m.ConvTranspose(5, (3, 3), (2, 2), **kw),
  ],
  ids=['Dense', 'Conv', 'ConvTranspose'],
)
def test_compute_dtype(make):
  x, _ = operands((5, 5), (1, 1), 4, 1)
  ours, linens = make(layers, dtype=jnp.bfloat16), make(nn, dtype=jnp.bfloat16)
  variables = ours.init(jax.random.key(0), x)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  y, gradient = jax.value_and_grad(
    lambda v: ours.apply(v, x).astype(jnp.float32).sum(), has_aux=False
  )(variables)
  assert ours.apply(variables, x).dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype('float32')}
  expected = linens.apply(variables, x).astype(jnp.float32).sum()
  np.testing.assert_allclose(y, expected, rtol=0.05, atol=0.05 * x.size**0.5)


@pytest.mark.parametrize('use_bias', [True, False])
def test_output_by_a_kernel_and_by_an_embedding(use_bias: bool):
  output = layers.Output(4, use_bias, nn.initializers.normal(1.0), jnp.bfloat16)
  x = operands((2, 3), (1, 1), 5, 1)[0]
  params = output.init(jax.random.key(0), x, None)['params']
  assert set(params) == {'kernel', *(['bias'] if use_bias else [])}
  if use_bias:
    params['bias'] = jnp.arange(4.0)
  got = output.apply({'params': params}, x, None)
  assert got.dtype == jnp.float32
  close(got, x @ params['kernel'] + params.get('bias', 0), 0.02)
  kernel = params.pop('kernel')
  close(output.apply({'params': params}, x, kernel.T), got)


@pytest.mark.parametrize(
  ('module', 'inputs', 'where'),
  [
    (dcgan.Generator((), (8, 8, 1)), ((2, 3), None), 'generator'),
    (conv_vae.Decoder((), 4, (8, 8, 1)), ((2, 3), (2, 0)), 'decoder'),
    (vqvae.Decoder((), 1, 4, (8, 8, 1)), ((2, 4, 4, 3),), 'decoder'),
  ],
)
def test_a_first_map_has_a_width(module, inputs, where):
  given = [shape and jnp.zeros(shape) for shape in inputs]
  with pytest.raises(UserError, match=rf'^config\.modules\.{where}\.widths is empty'):
    jax.eval_shape(lambda: module.init(jax.random.key(0), *given, train=False))
