"""The product of a dense layer equals `jnp.matmul`."""

import jax
import jax.numpy as jnp
import pytest

from models.kernels.dense import product
from tests.models.comparison import close, everything


@pytest.mark.parametrize('units', [5, 200])
@pytest.mark.parametrize('rows', [3, 100])
def test_value_and_derivatives_are_those_of_matmul(rows: int, units: int):
  """Few rows and many, few units and many take different forms."""
  x = jax.random.normal(jax.random.key(0), (rows, 4))
  kernel = jax.random.normal(jax.random.key(1), (4, units))
  run = lambda f: jax.jit(lambda x, k: everything(f, x, k))(x, kernel)  # noqa: E731
  close(run(product), run(jnp.matmul), 2e-5)


@pytest.mark.parametrize('axes', [(0, 0), (None, 0), (0, None)], ids=['both', 'kernel', 'x'])
def test_vmap_over_one_operand_and_over_both(axes):
  x = jax.random.normal(jax.random.key(0), (2, 3, 4))
  kernel = jax.random.normal(jax.random.key(1), (2, 4, 5))
  given = tuple(v if axis == 0 else v[0] for v, axis in zip((x, kernel), axes))
  run = lambda f: jax.jit(jax.vmap(lambda x, k: everything(f, x, k), axes))(*given)  # noqa: E731
  close(run(product), run(jnp.matmul), 2e-5)
