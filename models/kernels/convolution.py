"""2-D convolutions whose derivatives are written out, in the form that each platform runs fast.

On CPU, XLA is slow at what differentiation makes of a convolution: inside a `scan` or `while_loop`
the kernel gradient is not canonicalised and runs at 1 % of peak, and dilated convolutions (input
gradients of strided ones, transposed ones) miss the fast kernels. So the two transposes are
written out here. A convolution is bilinear, and three bilinear maps close under transposition:

    y  = convolve(x, k)           ∂x: input_gradient(g, k)     ∂k: kernel_gradient(x, g)
    dx = input_gradient(dy, k)    ∂dy: convolve(g, k)          ∂k: kernel_gradient(g, dy)
    dk = kernel_gradient(x, dy)   ∂x: input_gradient(dy, g)    ∂dy: convolve(x, g)

Each is defined with the other two as its transposes, so derivatives of every order (gradient
penalties) and in both modes are fast. Each map picks its form when it is lowered: the CPU forms for
CPU, plain `lax` operations elsewhere.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from models.kernels.linear import define_bilinear

Pair = tuple[int, int]

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# Below this many input channels a patch is too short for the convolution kernel; a product wins.
_FEW_CHANNELS = 4


class Geometry(NamedTuple):
  """All the static numbers of a 2-D convolution; hashable, fixed at trace time.

  Attributes:
    image: height and width of the input `x`.
    kernel: height and width of the kernel.
    stride: steps between windows along each axis.
    padding: (before, after) along each axis, in input pixels.
  """

  image: Pair
  kernel: Pair
  stride: Pair
  padding: tuple[Pair, Pair]

  @property
  def output(self) -> Pair:
    """Height and width of the result."""
    return tuple(
      (size + sum(pad) - width) // step + 1
      for size, pad, width, step in zip(self.image, self.padding, self.kernel, self.stride)
    )


def _geometry(image: Pair, kernel: Pair, stride: int | Sequence[int], padding: str) -> Geometry:
  if padding not in ('SAME', 'VALID'):
    raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")
  stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
  pads = lax.padtype_to_pads(image, kernel, stride, padding)
  return Geometry(tuple(image), tuple(kernel), stride, tuple((int(a), int(b)) for a, b in pads))


# --- the three bilinear maps ---------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, geometry: Geometry) -> Array:
  """x [N,H,W,C], kernel [h,w,C,O] → y [N,H',W',O]."""
  cpu = _cpu_conv_few_channels if x.shape[-1] < _FEW_CHANNELS else _lax_conv
  return _by_platform(cpu, _lax_conv, x, kernel, geometry)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
  """dy [N,H',W',O], kernel [h,w,C,O] → dx [N,H,W,C]: the transpose of `_convolve` in x."""
  few = kernel.shape[2] < _FEW_CHANNELS
  cpu = _cpu_input_gradient_few_channels if few else _cpu_input_gradient
  return _by_platform(cpu, _lax_input_gradient, dy, kernel, geometry)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
  """x [N,H,W,C], dy [N,H',W',O] → dk [h,w,C,O]: the transpose of `_convolve` in the kernel."""
  few = x.shape[-1] < _FEW_CHANNELS
  cpu = _cpu_kernel_gradient_few_channels if few else _cpu_kernel_gradient
  return _by_platform(cpu, _lax_kernel_gradient, x, dy, geometry)


def _swapped(function: Callable[..., Array]) -> Callable[..., Array]:
  """The function of its first two arguments in the other order."""
  return lambda a, b, geometry: function(b, a, geometry)


define_bilinear(_convolve, _input_gradient, _swapped(_kernel_gradient))
define_bilinear(_input_gradient, _convolve, _kernel_gradient)
define_bilinear(_kernel_gradient, _swapped(_input_gradient), _swapped(_convolve))


def _by_platform(cpu: Callable, default: Callable, a: Array, b: Array, geometry: Geometry) -> Array:
  """Calls the form meant for the platform that the computation is lowered for."""
  bind = lambda function: functools.partial(function, geometry=geometry)  # noqa: E731
  return lax.platform_dependent(a, b, cpu=bind(cpu), default=bind(default))


# --- plain forms: what differentiation would have made --------------------------------------------


def _lax_conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
  return lax.conv_general_dilated(
    x, kernel, geometry.stride, geometry.padding, dimension_numbers=_DIMENSIONS
  )


def _lax_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
  shape = (dy.shape[0], *geometry.image, kernel.shape[2])
  transpose = jax.linear_transpose(
    lambda x: _lax_conv(x, kernel, geometry), jax.ShapeDtypeStruct(shape, dy.dtype)
  )
  return transpose(dy)[0]


def _lax_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
  shape = (*geometry.kernel, x.shape[-1], dy.shape[-1])
  transpose = jax.linear_transpose(
    lambda kernel: _lax_conv(x, kernel, geometry), jax.ShapeDtypeStruct(shape, x.dtype)
  )
  return transpose(dy)[0]


# --- CPU forms, many channels: stride-1 convolutions, which XLA hands to Eigen -------------------


def _cpu_input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
  """One stride-1 convolution to s·s·C channels (the s·s output phases), then depth-to-space.

  With v = u + before, phase r = v mod s and q = v div s, the gradient at input pixel u is
  dx[u] = Σ_a dy[q - a] k[r + s·a]: for each phase a convolution with the reversed sub-kernel.
  """
  (sh, sw), (kh, kw) = geometry.stride, geometry.kernel
  c, o = kernel.shape[2:]
  ah, aw = math.ceil(kh / sh), math.ceil(kw / sw)
  full = jnp.pad(kernel, ((0, ah * sh - kh), (0, aw * sw - kw), (0, 0), (0, 0)))
  phases = full.reshape(ah, sh, aw, sw, c, o)[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
  phases = lax.optimization_barrier(phases.reshape(ah, aw, o, sh * sw * c))
  pads, counts, offsets = zip(*(_phase_range(geometry, axis) for axis in (0, 1)))
  y = lax.conv_general_dilated(dy, phases, (1, 1), pads, dimension_numbers=_DIMENSIONS)
  y = lax.optimization_barrier(y) if (sh, sw) != (1, 1) else y
  y = y.reshape(-1, *counts, sh, sw, c).transpose(0, 1, 3, 2, 4, 5)
  y = y.reshape(-1, counts[0] * sh, counts[1] * sw, c)
  (top, left), (height, width) = offsets, geometry.image
  return y[:, top : top + height, left : left + width]


def _phase_range(geometry: Geometry, axis: int) -> tuple[Pair, int, int]:
  """Returns padding of dy, number of positions q, and pixels to drop before the first input."""
  size, step = geometry.image[axis], geometry.stride[axis]
  before = geometry.padding[axis][0]
  taps = math.ceil(geometry.kernel[axis] / step)
  first, last = before // step, (before + size - 1) // step
  # dy[q - a] for q in [first, last], a in [0, taps)
  pad = (taps - 1 - first, last - (geometry.output[axis] - 1))
  return pad, last - first + 1, before - first * step


def _cpu_kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
  """The gradient as a forward convolution: channels as batch, batch as channels, dy as kernel.

  The barriers keep XLA from folding the transposes back into a layout that has no fast kernel.
  """
  x = lax.optimization_barrier(x.transpose(3, 1, 2, 0))
  dy = lax.optimization_barrier(dy.transpose(1, 2, 0, 3))
  pads = tuple(
    (before, (out - 1) * step + width - size - before)
    for (before, _), out, step, width, size in zip(
      geometry.padding, geometry.output, geometry.stride, geometry.kernel, geometry.image
    )
  )
  dk = lax.conv_general_dilated(
    x, dy, (1, 1), pads, rhs_dilation=geometry.stride, dimension_numbers=_DIMENSIONS
  )
  return dk.transpose(1, 2, 0, 3)


# --- CPU forms, few channels: products with the patches ------------------------------------------


def _patches(x: Array, geometry: Geometry) -> Array:
  """x [N,H,W,C] → [h·w·C, N·H'·W'], each column the window that one output pixel sees.

  Taps are the first axis, so that every piece copied is a contiguous row of pixels; with the taps
  last a copy would move single numbers. Columns before rows: h + w copies instead of h·w.
  """
  x = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *geometry.padding))
  (sh, sw), (height, width) = geometry.stride, geometry.output
  columns = [x[..., j : j + (width - 1) * sw + 1 : sw] for j in range(geometry.kernel[1])]
  columns = lax.optimization_barrier(jnp.stack(columns))
  rows = [columns[..., i : i + (height - 1) * sh + 1 : sh, :] for i in range(geometry.kernel[0])]
  return lax.optimization_barrier(jnp.stack(rows).reshape(-1, x.shape[1] * height * width))


def _cpu_conv_few_channels(x: Array, kernel: Array, geometry: Geometry) -> Array:
  channels = kernel.shape[-1]
  taps_first = (((0,), (0,)), ((), ()))
  y = lax.dot_general(_patches(x, geometry), kernel.reshape(-1, channels), taps_first)
  return y.reshape(x.shape[0], *geometry.output, channels)


def _cpu_kernel_gradient_few_channels(x: Array, dy: Array, geometry: Geometry) -> Array:
  dk = _patches(x, geometry) @ dy.reshape(-1, dy.shape[-1])
  return dk.reshape(*geometry.kernel, x.shape[-1], dy.shape[-1])


def _cpu_input_gradient_few_channels(dy: Array, kernel: Array, geometry: Geometry) -> Array:
  """The product with the kernel spreads each dy over its window; overlapping windows add up."""
  c, o = kernel.shape[2:]
  (kh, kw), (sh, sw), (height, width) = geometry.kernel, geometry.stride, geometry.output
  ah, aw = math.ceil(kh / sh), math.ceil(kw / sw)
  full = jnp.pad(kernel, ((0, ah * sh - kh), (0, aw * sw - kw), (0, 0), (0, 0)))
  windows = lax.optimization_barrier(dy.reshape(-1, o) @ full.reshape(-1, o).T)
  windows = windows.reshape(-1, height, width, ah, sh, aw, sw, c)
  y = sum(
    jnp.pad(windows[:, :, :, a, :, b], _shift((a, ah - 1 - a), (b, aw - 1 - b), rank=6))
    for a in range(ah)
    for b in range(aw)
  )
  y = y.transpose(0, 1, 3, 2, 4, 5).reshape(-1, (height + ah - 1) * sh, (width + aw - 1) * sw, c)
  crop = [
    (-before, before + size - length)
    for (before, _), size, length in zip(geometry.padding, geometry.image, y.shape[1:3])
  ]
  return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *((a, b, 0) for a, b in crop), (0, 0, 0)])


def _shift(rows: Pair, columns: Pair, rank: int) -> list[Pair]:
  """Padding widths for axes 1 and 2 of an array of `rank` axes."""
  return [(0, 0), rows, columns, *[(0, 0)] * (rank - 3)]


# --- functions ------------------------------------------------------------------------------------


def conv(x: Array, kernel: Array, stride: int | Sequence[int] = 1, padding: str = 'SAME') -> Array:
  """2-D convolution (cross-correlation), NHWC.

  Args:
    x: [N, H, W, C].
    kernel: [h, w, C, O], of the same dtype.
    stride: one step for both axes, or a pair.
    padding: 'SAME' or 'VALID'.

  Returns:
    [N, H', W', O], equal to `lax.conv_general_dilated`.

  Raises:
    ValueError: the padding is another, or the channels do not match.
  """
  _check(x, kernel, 'conv', kernel.shape[2])
  return _convolve(x, kernel, _geometry(x.shape[1:3], kernel.shape[:2], stride, padding))


def conv_transpose(
  x: Array, kernel: Array, stride: int | Sequence[int] = 1, padding: str = 'SAME'
) -> Array:
  """2-D transposed convolution, NHWC, as `lax.conv_transpose(..., transpose_kernel=False)`.

  It is the input gradient of the strided convolution whose kernel is this one turned by 180° with
  its channel axes swapped.

  Args:
    x: [N, H, W, C].
    kernel: [h, w, C, O], of the same dtype.
    stride: one step for both axes, or a pair.
    padding: 'SAME' (H' = H·stride) or 'VALID' (H' = H·stride + max(h - stride, 0)).

  Returns:
    [N, H', W', O].

  Raises:
    ValueError: the padding is another, or the channels do not match.
  """
  _check(x, kernel, 'conv_transpose', kernel.shape[2])
  stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
  extra = [
    max(width - step, 0) if padding == 'VALID' else 0 for width, step in zip(kernel.shape, stride)
  ]
  image = tuple(size * step + more for size, step, more in zip(x.shape[1:3], stride, extra))
  geometry = _geometry(image, kernel.shape[:2], stride, padding)
  return _input_gradient(x, kernel[::-1, ::-1].swapaxes(2, 3), geometry)


def _check(x: Array, kernel: Array, name: str, channels: int) -> None:
  if x.ndim != 4 or kernel.ndim != 4 or x.shape[-1] != channels:
    raise ValueError(
      f'{name} takes x [N, H, W, C] and a kernel [h, w, C, O], got {x.shape} and {kernel.shape}'
    )
