"""Norms equal linen's."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from models.norms import Norm
from tests.models.comparison import close, operands


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
  norm = Norm(1e-3, centred, bias)
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
