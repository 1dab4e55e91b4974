"""Max pooling over windows that do not overlap, with a gradient that is a comparison."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

Pair = tuple[int, int]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_pool(x: Array, window: int | Pair) -> Array:
  """Returns the maximum of each window, 'VALID': [N,H,W,C] → [N,H//h,W//w,C].

  `nn.max_pool(x, window, strides=window)` differentiates into `select_and_scatter`, the slowest
  operation of a CNN on CPU. Here every maximum of a window receives the gradient, so where values
  tie the gradient is another subgradient (after a ReLU ties are zeros, whose gradient is zero).

  Args:
    x: [N, H, W, C]; rows and columns that do not fill a window are dropped.
    window: height and width of the window, one int for both.
  """
  return _windows(x, window).max((2, 4))


@max_pool.defjvp
def _differentiate(window: int | Pair, primals: tuple[Array], tangents: tuple[Array]):
  (x,), (dx,) = primals, tangents
  y = max_pool(x, window)
  is_maximum = _windows(x, window) == y[:, :, None, :, None, :]
  return y, jnp.where(is_maximum, _windows(dx, window), 0).sum((2, 4))


def _windows(x: Array, window: int | Pair) -> Array:
  """[N,H,W,C] → [N, H//h, h, W//w, w, C]."""
  h, w = (window, window) if isinstance(window, int) else window
  n, height, width, c = x.shape
  rows, columns = height // h, width // w
  return x[:, : rows * h, : columns * w].reshape(n, rows, h, columns, w, c)
