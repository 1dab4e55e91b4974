"""The layers equal linen's and plain `lax` in value, first and second derivative, parameters."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import Array, lax

from models import layers

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# image, kernel, stride, padding, channels in, channels out
CASES = [
  ((8, 8), (4, 4), 2, 'SAME', 6, 5),  # the DCGAN's
  ((8, 8), (4, 4), 2, 'SAME', 1, 5),
  ((8, 8), (4, 4), 2, 'SAME', 6, 1),
  ((7, 6), (3, 3), 1, 'SAME', 4, 3),
  ((7, 6), (3, 3), 2, 'SAME', 3, 4),
  ((9, 7), (5, 2), 1, 'VALID', 5, 4),
  ((9, 8), (3, 3), 2, 'VALID', 4, 4),  # the last columns belong to no window
  ((9, 8), (3, 3), 2, 'VALID', 1, 4),
  ((6, 5), (1, 1), 2, 'SAME', 4, 4),  # the kernel is smaller than the stride
  ((7, 8), (4, 3), (2, 3), 'VALID', 4, 6),
  ((7, 8), (4, 3), (2, 3), 'SAME', 2, 6),
]


def lax_conv(x: Array, kernel: Array, stride: int | tuple[int, int], padding: str) -> Array:
  stride = (stride, stride) if isinstance(stride, int) else stride
  return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=DIMENSIONS)


def lax_conv_transpose(x: Array, kernel: Array, stride, padding: str) -> Array:
  stride = (stride, stride) if isinstance(stride, int) else stride
  return lax.conv_transpose(x, kernel, stride, padding, dimension_numbers=DIMENSIONS)


PAIRS = [(layers.conv, lax_conv), (layers.conv_transpose, lax_conv_transpose)]


def operands(image, kernel, channels: int, features: int, batch: int = 3) -> tuple[Array, Array]:
  rng = np.random.default_rng(0)  # numpy's: nothing to compile for each shape
  x = rng.standard_normal((batch, *image, channels), np.float32)
  return jnp.asarray(x), jnp.asarray(rng.standard_normal((*kernel, channels, features), np.float32))


def close(actual, expected, scale: float = 1e-5) -> None:
  """Asserts equality to float32 rounding, relative to the largest entry of each array."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=0, atol=scale * np.abs(b).max(initial=1.0))


def energy(function: Callable, x: Array, kernel: Array) -> Array:
  """A scalar in which both operands appear nonlinearly."""
  return jnp.sum(jnp.tanh(function(x, kernel)))


def penalty(function: Callable, x: Array, kernel: Array) -> Array:
  """A penalty on both gradients: differentiated, it takes every derivative of second order."""
  gradients = jax.grad(energy, argnums=(1, 2))(function, x, kernel)
  return sum(jnp.mean(gradient**2) for gradient in gradients)


def everything(function: Callable, x: Array, kernel: Array) -> tuple:
  """Value, gradients, and gradients of a gradient penalty."""
  return (
    function(x, kernel),
    jax.grad(energy, argnums=(1, 2))(function, x, kernel),
    jax.grad(penalty, argnums=(1, 2))(function, x, kernel),
  )


@pytest.mark.parametrize('fast, plain', PAIRS, ids=['conv', 'conv_transpose'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_value_and_both_orders_of_gradient(case, fast, plain):
  image, kernel, stride, padding, channels, features = case
  data = operands(image, kernel, channels, features)
  actual, expected = (
    jax.jit(functools.partial(everything, lambda x, k, f=f: f(x, k, stride, padding)))(*data)
    for f in (fast, plain)
  )
  close(actual, expected, 2e-5)


@pytest.mark.parametrize('fast, plain', PAIRS, ids=['conv', 'conv_transpose'])
@pytest.mark.parametrize('channels', [1, 5])
def test_vmap_over_both_operands(fast, plain, channels: int):
  seeds = [operands((6, 6), (4, 4), channels, 4), operands((6, 6), (4, 4), channels, 4, batch=3)]
  x, kernel = (jnp.stack([a, 2 * b]) for a, b in zip(*seeds))
  run = lambda f: jax.jit(  # noqa: E731
    jax.vmap(functools.partial(everything, lambda x, k: f(x, k, 2, 'SAME')))
  )(x, kernel)
  close(run(fast), run(plain), 2e-5)


def descend(function: Callable, loop: str, x: Array, kernel: Array, count: int) -> Array:
  """Gradient descent on the kernel in a loop, as the training step runs."""
  update = lambda k: k - 1e-3 * jax.grad(energy, argnums=2)(function, x, k)  # noqa: E731
  if loop == 'scan':
    return lax.scan(lambda k, _: (update(k), None), kernel, length=3)[0]
  return lax.while_loop(
    lambda carry: carry[0] < count, lambda carry: (carry[0] + 1, update(carry[1])), (0, kernel)
  )[1]


@pytest.mark.parametrize('fast, plain', PAIRS, ids=['conv', 'conv_transpose'])
@pytest.mark.parametrize('loop', ['while', 'scan'])
def test_inside_a_loop(fast, plain, loop: str):
  x, kernel = operands((6, 6), (4, 4), 4, 4)
  run = lambda f: jax.jit(  # noqa: E731
    lambda x, k, n: descend(lambda x, k: f(x, k, 2, 'SAME'), loop, x, k, n)
  )(x, kernel, 3)
  close(run(fast), run(plain))


def gradients_of_conv(x: Array, kernel: Array) -> tuple[Array, Array]:
  return jax.grad(energy, argnums=(1, 2))(lambda x, k: layers.conv(x, k, 2), x, kernel)


def test_cpu_forms_are_those_that_run_on_cpu():
  """Guards the reason for this file: every convolution in the one layout that has a fast kernel."""
  lowered = jax.jit(gradients_of_conv).lower(*operands((8, 8), (4, 4), 8, 8))
  text = lowered.as_text()
  assert text.count('stablehlo.convolution') == 3
  assert text.count('dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]') == 3
  assert 'lhs_dilate = [2, 2]' not in text
  assert ' conditional(' not in lowered.compile().as_text()  # the choice of platform costs nothing


def test_other_platforms_get_plain_forms():
  traced = jax.jit(gradients_of_conv).trace(*operands((8, 8), (4, 4), 8, 8))
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('stablehlo.convolution') == 3
  assert 'lhs_dilate = [2, 2]' in text and 'optimization_barrier' not in text


@pytest.mark.parametrize('fast, plain', PAIRS, ids=['conv', 'conv_transpose'])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_plain_forms_are_right(monkeypatch, padding: str, fast, plain):
  """What other platforms run, run here."""
  monkeypatch.setattr(layers, '_by_platform', lambda cpu, default, *args: default(*args))
  data = operands((9, 8), (4, 3), 5, 4)
  actual, expected = (
    jax.jit(functools.partial(everything, lambda x, k, f=f: f(x, k, 2, padding)))(*data)
    for f in (fast, plain)
  )
  close(actual, expected, 2e-5)


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


@pytest.mark.parametrize('rows', [3, 100])
def test_a_product_s_gradients_of_both_orders_are_those_of_matmul(rows):
  """Few rows and many take different forms."""
  x, k = (
    jax.random.normal(jax.random.key(0), (rows, 4)),
    jax.random.normal(jax.random.key(1), (4, 5)),
  )

  def first(multiply):
    return jax.grad(lambda x, k: jnp.sum(jnp.sin(multiply(x, k))), (0, 1))

  def second(multiply):
    return jax.grad(lambda x, k: sum(jnp.sum(g**2) for g in first(multiply)(x, k)), (0, 1))

  close(layers.product(x, k), x @ k)
  close(first(layers.product)(x, k), first(jnp.matmul)(x, k))
  close(second(layers.product)(x, k), second(jnp.matmul)(x, k))


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


@pytest.mark.parametrize('window', [2, 3, (2, 4)])
def test_max_pool_is_linens(window):
  pair = (window, window) if isinstance(window, int) else window
  x, _ = operands((8, 9), (1, 1), 3, 1)  # rows and columns are left over
  weight = jnp.arange(1.0, x.shape[0] + 1)[:, None, None, None]
  plain = lambda x: nn.max_pool(x, pair, strides=pair)  # noqa: E731
  run = lambda f: jax.value_and_grad(lambda x: jnp.sum(weight * jnp.sin(f(x))))(x)  # noqa: E731
  close(run(lambda x: layers.max_pool(x, window)), run(plain))


def test_gelu_is_exact_gelu():
  x = jnp.linspace(-6, 6, 101)
  run = lambda f: (f(x), jax.grad(lambda x: f(x).sum())(x))  # noqa: E731
  close(run(layers.gelu), run(functools.partial(jax.nn.gelu, approximate=False)), 1e-6)


@pytest.mark.parametrize('entries', [7, 2000], ids=['few', 'many'])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_lookup_and_its_gradient(entries: int, dtype):
  table = operands((1, 1), (entries, 1), 1, 5)[1].reshape(entries, 5).astype(dtype)
  ids = jnp.array([[6, 0, 6], [3, 1, 6]])
  weight = jnp.arange(1.0, 7).reshape(2, 3, 1).astype(dtype)

  def run(function: Callable) -> tuple[Array, Array]:
    energy = lambda table: jnp.sum(weight * function(table, ids) ** 2)  # noqa: E731
    return function(table, ids), jax.jit(jax.grad(energy))(table)

  tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
  close(run(layers.lookup), run(lambda table, ids: table[ids]), tolerance)


@pytest.mark.parametrize(
  ('centred', 'bias', 'plain'),
  [
    (True, True, nn.LayerNorm(1e-3, use_fast_variance=False)),
    (True, False, nn.LayerNorm(1e-3, use_bias=False, use_fast_variance=False)),
    (False, False, nn.RMSNorm(1e-3)),
  ],
  ids=['layer', 'layer without bias', 'rms'],
)
def test_norm_is_linens(centred: bool, bias: bool, plain: nn.Module):
  norm = layers.Norm(1e-3, centred, bias)
  x = 3 * operands((4, 6), (1, 1), 5, 1)[0] + 2
  params = {'scale': jnp.linspace(0.5, 2, 5), **({'bias': jnp.linspace(-1, 1, 5)} if bias else {})}

  def run(module: nn.Module) -> tuple:
    energy = lambda p, x: jnp.sum(jnp.sin(module.apply({'params': p}, x)))  # noqa: E731
    return module.apply({'params': params}, x), jax.jit(jax.grad(energy, argnums=(0, 1)))(params, x)

  close(run(norm), run(plain))
  made = norm.init(jax.random.key(0), x)['params']
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
  half = norm.apply({'params': params}, x.astype(jnp.bfloat16))
  assert half.dtype == jnp.float32


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


@pytest.mark.parametrize('function', [layers.conv, layers.conv_transpose])
def test_wrong_arguments_are_named(function):
  x, kernel = operands((6, 6), (3, 3), 4, 2)
  with pytest.raises(ValueError, match="'SAME' or 'VALID', got 'CIRCULAR'"):
    function(x, kernel, 1, 'CIRCULAR')
  with pytest.raises(ValueError, match=r'kernel \[h, w, C, O\]'):
    function(x[..., :3], kernel)
  with pytest.raises(ValueError, match=r'x \[N, H, W, C\]'):
    function(x[0], kernel)


SHARDED = """
import sys; sys.path.insert(0, sys.argv[1])
import jax
jax.config.update('jax_num_cpu_devices', 4)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jax.numpy as jnp, numpy as np
from models import layers
mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
def loss(x, k):
  pair = [f(x, k[:, :, :c], 2) for f, c in ((layers.conv, 4), (layers.conv_transpose, 4))]
  one = layers.conv(x[..., :1], k[:, :, :1], 2)
  return sum(jnp.sum(jnp.tanh(y)) for y in (*pair, one))
def penalty(x, k):
  return jnp.sum(jax.grad(loss)(x, k) ** 2)
x = jax.random.normal(jax.random.key(0), (8, 6, 6, 4))
k = jax.random.normal(jax.random.key(1), (4, 4, 4, 5))
run = jax.jit(lambda x, k: (jax.grad(loss, (0, 1))(x, k), jax.grad(penalty, (0, 1))(x, k)))
split = run(*jax.device_put((x, k), tuple(NamedSharding(mesh, P(*a)) for a in (['data'], []))))
for a, b in zip(jax.tree.leaves(split), jax.tree.leaves(run(x, k))):
  np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))
"""


def test_sharded_batch():
  """Four devices give the gradients of one (own process: devices are counted at start)."""
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  root = str(Path(layers.__file__).parents[1])
  subprocess.run([sys.executable, '-c', SHARDED, root], check=True, env=environment, timeout=120)
