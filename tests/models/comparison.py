"""Operands and comparisons that tests of the kernels and layers share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


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


def energy(function: Callable, a: Array, b: Array) -> Array:
  """A scalar in which both operands appear nonlinearly."""
  return jnp.sum(jnp.tanh(function(a, b)))


def gradients(function: Callable, a: Array, b: Array) -> tuple[Array, Array]:
  return jax.grad(energy, argnums=(1, 2))(function, a, b)


def penalty(function: Callable, a: Array, b: Array) -> Array:
  """A penalty on both gradients: differentiated, it takes every derivative of second order."""
  return sum(jnp.mean(gradient**2) for gradient in gradients(function, a, b))


def everything(function: Callable, a: Array, b: Array) -> tuple:
  """Value and derivatives of the first and second order, in reverse and in forward mode."""
  towards = (jnp.cos(a), jnp.sin(b))
  return (
    function(a, b),
    gradients(function, a, b),
    jax.grad(penalty, argnums=(1, 2))(function, a, b),
    jax.jvp(lambda a, b: gradients(function, a, b), (a, b), towards),
    jax.jvp(lambda a: jax.jvp(function, (a, b), towards)[1], (a,), (towards[0],)),
  )
