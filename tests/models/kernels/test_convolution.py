"""Convolutions equal plain `lax` in value and in derivatives of both modes and orders."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import Array, lax

from models.kernels import convolution
from models.kernels.convolution import conv, conv_transpose
from tests.models.comparison import close, energy, everything, operands

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


PAIRS = [(conv, lax_conv), (conv_transpose, lax_conv_transpose)]


@pytest.mark.parametrize('fast, plain', PAIRS, ids=['conv', 'conv_transpose'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_value_and_derivatives(case, fast, plain):
  image, kernel, stride, padding, channels, features = case
  data = operands(image, kernel, channels, features)
  actual, expected = (
    jax.jit(functools.partial(everything, lambda x, k, f=f: f(x, k, stride, padding)))(*data)
    for f in (fast, plain)
  )
  close(actual, expected, 2e-5)


@pytest.mark.slow
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
  return jax.grad(energy, argnums=(1, 2))(lambda x, k: conv(x, k, 2), x, kernel)


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
  monkeypatch.setattr(convolution, '_by_platform', lambda cpu, default, *args: default(*args))
  data = operands((9, 8), (4, 3), 5, 4)
  actual, expected = (
    jax.jit(functools.partial(everything, lambda x, k, f=f: f(x, k, 2, padding)))(*data)
    for f in (fast, plain)
  )
  close(actual, expected, 2e-5)


@pytest.mark.parametrize('function', [conv, conv_transpose])
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
from models.kernels.convolution import conv, conv_transpose
mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
def loss(x, k):
  pair = [f(x, k[:, :, :c], 2) for f, c in ((conv, 4), (conv_transpose, 4))]
  one = conv(x[..., :1], k[:, :, :1], 2)
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


@pytest.mark.slow
def test_sharded_batch():
  """Four devices give the gradients of one (own process: devices are counted at start)."""
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  root = str(Path(convolution.__file__).parents[2])
  subprocess.run([sys.executable, '-c', SHARDED, root], check=True, env=environment, timeout=120)
