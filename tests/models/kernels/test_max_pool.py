"""Max pooling equals linen's."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from models.kernels.max_pool import max_pool
from tests.models.comparison import close, operands


@pytest.mark.cpu("the gradient of linen's has no deterministic form on a GPU")
@pytest.mark.parametrize('window', [2, 3, (2, 4)])
def test_max_pool_is_linens(window):
  pair = (window, window) if isinstance(window, int) else window
  x, _ = operands((8, 9), (1, 1), 3, 1)  # rows and columns are left over
  weight = jnp.arange(1.0, x.shape[0] + 1)[:, None, None, None]
  plain = lambda x: nn.max_pool(x, pair, strides=pair)  # noqa: E731

  def run(function):
    energy = lambda x: jnp.sum(weight * jnp.sin(function(x)))  # noqa: E731
    return (*jax.value_and_grad(energy)(x), jax.jvp(function, (x,), (jnp.cos(x),)))

  close(run(lambda x: max_pool(x, window)), run(plain))
