"""GELU equals JAX's."""

import functools

import jax
import jax.numpy as jnp

from models.kernels.activations import gelu
from tests.models.comparison import close


def test_gelu_is_exact_gelu():
  x = jnp.linspace(-6, 6, 101)
  run = lambda f: (f(x), jax.grad(lambda x: f(x).sum())(x))  # noqa: E731
  close(run(gelu), run(functools.partial(jax.nn.gelu, approximate=False)), 1e-6)
