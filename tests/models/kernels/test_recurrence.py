"""The written-out derivatives of the recurrence against automatic ones of the plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.kernels.recurrence import CELLS, recur, recurrent, zeros

W, T = 5, 6
cells = pytest.mark.parametrize('cell', CELLS)


def close(actual, expected, tolerance=1e-5):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


def plain(cell, x, kernel, bias, keep):
  """`recur` as a loop that differentiates itself."""

  def step(states, inputs):
    x, keep = inputs
    states = tuple(state * keep for state in states)
    states, _ = cell.forward(x, recurrent(states[0], kernel, bias), states)
    return states, states[0]

  keep = jnp.ones((x.shape[0], 1, 1)) if keep is None else keep
  return jax.lax.scan(step, zeros(cell, x.shape[1], kernel.shape[0]), (x, keep))[1]


def operands(cell, batch=2):
  rng = np.random.default_rng(2)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
  columns = cell.gates * W
  keep = jnp.asarray(rng.integers(0, 2, (T, batch, 1)), jnp.float32)
  return draw(T, batch, columns), draw(W, columns), draw(columns), keep


@cells
@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'restarted'])
def test_derivatives_are_those_of_the_plain_loop(cell, whole):
  cell = CELLS[cell]
  x, kernel, bias, keep = operands(cell)
  keep = None if whole else keep

  def everything(function):
    energy = lambda *inputs: jnp.sum(jnp.sin(3 * function(cell, *inputs, keep)))  # noqa: E731
    gradients = jax.value_and_grad(energy, argnums=(0, 1, 2))
    # Forward over reverse: values, gradients, and the derivatives of all of them.
    towards = (jnp.cos(x), jnp.sin(kernel), bias**2)
    return jax.jit(lambda *inputs: jax.jvp(gradients, inputs, towards))(x, kernel, bias)

  close(everything(recur), everything(plain), 2e-5)


def test_derivatives_under_vmap_and_without_a_bias():
  cell = CELLS['lstm']
  x, kernel, _, _ = operands(cell)
  x, kernel = jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])

  def everything(function):
    run = lambda x, k: function(cell, x, k, None, None)  # noqa: E731
    gradients = jax.grad(lambda *given: jnp.sum(jnp.sin(run(*given))), argnums=(0, 1))
    both = lambda x, k: (gradients(x, k), jax.jvp(run, (x, k), (jnp.cos(x), k)))  # noqa: E731
    return jax.jit(jax.vmap(both))(x, kernel)

  close(everything(recur), everything(plain), 1e-5)


@cells
def test_the_gradient_of_the_kernel_is_one_product_of_all_steps(cell):
  """Guards the reason for the written-out gradient: each loop holds one product of its own."""
  cell = CELLS[cell]
  x, kernel, bias, _ = operands(cell)
  energy = lambda *inputs: recur(cell, *inputs, None).sum()  # noqa: E731
  text = jax.jit(jax.grad(energy, argnums=(0, 1, 2))).lower(x, kernel, bias).as_text()
  products = [line for line in text.splitlines() if 'stablehlo.dot_general' in line]
  assert text.count('stablehlo.while') == 2 and len(products) == 3
  rows = T * x.shape[1]
  assert sum(f'(tensor<{W}x{rows}xf32>, tensor<{rows}x' in line for line in products) == 1
