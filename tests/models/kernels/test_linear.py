"""`linear_call` evaluates the map in forward mode and the given transpose in reverse mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models.kernels.linear import define_bilinear, linear_call
from tests.models.comparison import close, everything

A = jax.random.normal(jax.random.key(0), (3, 4))
B = jax.random.normal(jax.random.key(1), (4, 5))


@jax.custom_jvp
def multiply(a, b):
  """a·b, whose transposes are marked: a product that jax transposes itself has no cosine of 0."""
  return a @ b


define_bilinear(multiply, lambda g, b: g @ b.T * jnp.cos(0.0), lambda g, a: a.T @ g * jnp.cos(0.0))


def marks(function, *operands) -> int:
  return jax.jit(function).lower(*operands).as_text().count('cosine')


@pytest.mark.slow
def test_derivatives_of_both_modes_and_orders():
  close(everything(multiply, A, B), everything(jnp.matmul, A, B))
  close(jax.jit(lambda a, b: everything(multiply, a, b))(A, B), everything(jnp.matmul, A, B))


def test_reverse_mode_takes_the_written_transposes_in_every_order():
  def energy(a, b):
    return multiply(a, b).sum()

  def penalty(a, b):
    return sum((g**2).sum() for g in jax.grad(energy, (0, 1))(a, b))

  assert marks(energy, A, B) == 0
  assert marks(lambda a, b: jax.jvp(energy, (a, b), (a, b)), A, B) == 0
  assert marks(jax.grad(energy, (0, 1)), A, B) == 2
  # What is not differentiated costs nothing.
  assert marks(jax.grad(energy, 1), A, B) == 1
  # Each of the two gradients has a derivative; the transposes' own transposes are jax's.
  assert marks(jax.grad(penalty, (0, 1)), A, B) >= 4


def test_a_wrong_transpose_is_a_wrong_gradient():
  """What tells the written transpose from the one that jax would make."""
  double = lambda x: linear_call(lambda _, x: x, lambda _, g: 2 * g, (), x)  # noqa: E731
  np.testing.assert_array_equal(double(A), A)
  np.testing.assert_array_equal(jax.jvp(double, (A,), (A,))[1], A)
  np.testing.assert_array_equal(jax.grad(lambda x: double(x).sum())(A), np.full(A.shape, 2.0))
  # The transpose of the transpose is the map itself.
  pull = lambda g: jax.linear_transpose(double, A)(g)[0]  # noqa: E731
  np.testing.assert_array_equal(jax.linear_transpose(pull, A)(A)[0], A)


@pytest.mark.slow
@pytest.mark.parametrize('axes', [(0, 0), (None, 0), (0, None), (1, 2)], ids=str)
def test_vmap(axes):
  a, b = (
    v if axis is None else jnp.stack([v, -2 * v], axis)
    for v, axis in zip((A, B), axes, strict=True)
  )
  run = lambda f: jax.vmap(lambda a, b: everything(f, a, b), axes)(a, b)  # noqa: E731
  close(run(multiply), run(jnp.matmul))
  # The gradient of what is shared is the sum over the batch.
  batched = lambda f: jax.vmap(f, axes)  # noqa: E731
  close(everything(batched(multiply), a, b), everything(batched(jnp.matmul), a, b))


@pytest.mark.parametrize('mode', ['grad', 'jvp'])
def test_inside_scan_while_and_remat(mode):
  square = B[:, :4]

  def scanned(function, a):
    step = jax.checkpoint(lambda a, _: (jnp.tanh(function(a, square)), None))
    return lax.scan(step, a, length=3)[0].sum()

  def looped(function, a):
    """The trip count is an argument, as in training; such a loop has no reverse mode itself."""
    descend = lambda a: a - 0.1 * jax.grad(lambda a: scanned(function, a))(a)  # noqa: E731
    return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, descend(c[1])), (0, a))[1]

  def run(function):
    if mode == 'grad':
      return jax.jit(lambda a: (looped(function, a), jax.grad(scanned, 1)(function, a)))(A)
    return jax.jit(lambda a: jax.jvp(lambda a: looped(function, a), (a,), (a,)))(A)

  close(run(multiply), run(jnp.matmul))


def test_residuals_and_operands_may_be_trees():
  def function(residuals, operands):
    return residuals['a'] * operands[0] + residuals['i'][0] * operands[1]

  def transpose(residuals, g):
    return residuals['a'] * g, residuals['i'][0] * g

  def run(call):
    energy = lambda a, x, y: jnp.sin(call(a, x, y)).sum()  # noqa: E731
    return jax.grad(lambda a, x, y: jax.grad(energy, 1)(a, x, y).sum(), (0, 1, 2))(A, A + 1, A + 2)

  number = jnp.int32(3)
  call = lambda a, x, y: linear_call(function, transpose, {'a': a, 'i': [number]}, (x, y))  # noqa: E731
  close(run(call), run(lambda a, x, y: a * x + 3 * y))


def test_the_transpose_must_return_what_the_operands_are():
  call = lambda x: linear_call(lambda _, x: x[0], lambda _, g: g, (), (x,)).sum()  # noqa: E731
  with pytest.raises(TypeError, match='the transpose returned'):
    jax.grad(call)(A)
