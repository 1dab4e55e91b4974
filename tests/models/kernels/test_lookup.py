"""Lookup equals indexing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from models.kernels.lookup import lookup
from tests.models.comparison import close, operands


@pytest.mark.parametrize('entries', [7, 2000], ids=['few', 'many'])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_value_gradient_and_the_derivative_of_the_gradient(entries: int, dtype):
  table = operands((1, 1), (entries, 1), 1, 5)[1].reshape(entries, 5).astype(dtype)
  ids = jnp.array([[6, 0, 6], [3, 1, 6]])
  weight = jnp.arange(1.0, 7).reshape(2, 3, 1).astype(dtype)

  def run(function: Callable) -> tuple:
    energy = lambda table: jnp.sum(weight * function(table, ids) ** 2)  # noqa: E731
    gradient = jax.grad(energy)
    return function(table, ids), *jax.jit(lambda t: jax.jvp(gradient, (t,), (jnp.cos(t),)))(table)

  tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
  close(run(lookup), run(lambda table, ids: table[ids]), tolerance)
