"""Layers whose parameters and results are linen's, in the form that runs fast where it runs.

`Conv`, `ConvTranspose`, `Dense`: drop-in for `nn.Conv`, `nn.ConvTranspose` and `nn.Dense` (same
parameter names, shapes, initialisers, results), built on `conv` and `conv_transpose` below.
`Embed` and `Norm` stand for `nn.Embed`, and for `nn.LayerNorm` and `nn.RMSNorm`. `max_pool`,
`gelu` and `lookup` are exact as well and differentiate into cheaper code.

On CPU, XLA is slow at what differentiation makes of a convolution: inside a `scan` or `while_loop`
the kernel gradient is not canonicalised and runs at 1 % of peak, and dilated convolutions (input
gradients of strided ones, transposed ones) miss the fast kernels. So the two derivatives are
written out here. A convolution is bilinear, and three bilinear maps close under differentiation:

    y  = conv(x, k)          ∂x: input_gradient(g, k)     ∂k: kernel_gradient(x, g)
    dx = input_gradient(dy, k)  ∂dy: conv(g, k)            ∂k: kernel_gradient(g, dy)
    dk = kernel_gradient(x, dy)  ∂x: input_gradient(dy, g)  ∂dy: conv(x, g)

Each is a `custom_vjp` whose rule is the other two, so gradients of every order (gradient penalties)
are fast. As with every `custom_vjp`, forward mode (`jax.jvp`, `jax.hessian`) is not available.
Each map picks its form when it is lowered: the CPU forms for CPU, plain `lax` operations elsewhere.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

Pair = tuple[int, int]
Initializer = Callable[..., Array]

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# Below this many input channels a patch is too short for the convolution kernel; a product wins.
_FEW_CHANNELS = 4
# Up to this many rows a product is bound by reading the kernel.
_FEW_ROWS = 64
# Up to this many units of so few rows YNNPACK loses more by sharing the work out than it gains.
_FEW_UNITS = 128
# Up to this many entries a product with one-hot rows beats adding up rows one by one.
_FEW_ENTRIES = 1024


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
  """x [N,H,W,C], kernel [h,w,C,O] → y [N,H',W',O]."""
  cpu = _cpu_conv_few_channels if x.shape[-1] < _FEW_CHANNELS else _lax_conv
  return _by_platform(cpu, _lax_conv, x, kernel, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> Array:
  """dy [N,H',W',O], kernel [h,w,C,O] → dx [N,H,W,C]: the transpose of `_conv` in x."""
  few = kernel.shape[2] < _FEW_CHANNELS
  cpu = _cpu_input_gradient_few_channels if few else _cpu_input_gradient
  return _by_platform(cpu, _lax_input_gradient, dy, kernel, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> Array:
  """x [N,H,W,C], dy [N,H',W',O] → dk [h,w,C,O]: the transpose of `_conv` in the kernel."""
  few = x.shape[-1] < _FEW_CHANNELS
  cpu = _cpu_kernel_gradient_few_channels if few else _cpu_kernel_gradient
  return _by_platform(cpu, _lax_kernel_gradient, x, dy, geometry)


def _residuals(function: Callable[..., Array]) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
  """Returns the forward rule of a bilinear map: its value, and both operands to keep."""
  return lambda a, b, geometry: (function(a, b, geometry), (a, b))


def _conv_backward(geometry: Geometry, operands: tuple[Array, Array], g: Array):
  x, kernel = operands
  return _input_gradient(g, kernel, geometry), _kernel_gradient(x, g, geometry)


def _input_gradient_backward(geometry: Geometry, operands: tuple[Array, Array], g: Array):
  dy, kernel = operands
  return _conv(g, kernel, geometry), _kernel_gradient(g, dy, geometry)


def _kernel_gradient_backward(geometry: Geometry, operands: tuple[Array, Array], g: Array):
  x, dy = operands
  return _input_gradient(dy, g, geometry), _conv(x, g, geometry)


_conv.defvjp(_residuals(_conv), _conv_backward)
_input_gradient.defvjp(_residuals(_input_gradient), _input_gradient_backward)
_kernel_gradient.defvjp(_residuals(_kernel_gradient), _kernel_gradient_backward)


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

  Taps stand in front, so that every piece is a row of pixels copied as it lies; with the taps last
  a copy would move single numbers. Columns before rows: h + w copies instead of h·w.
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
  return _conv(x, kernel, _geometry(x.shape[1:3], kernel.shape[:2], stride, padding))


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Array, window: int | Pair) -> Array:
  """Maximum over non-overlapping windows, 'VALID': [N,H,W,C] → [N,H//h,W//w,C].

  `nn.max_pool(x, window, strides=window)` differentiates into `select_and_scatter`, the slowest
  operation of a CNN on CPU. Here every maximum of a window receives the gradient, so where values
  tie the gradient is another subgradient (after a ReLU ties are zeros, whose gradient is zero).

  Args:
    x: [N, H, W, C]; rows and columns that do not fill a window are dropped.
    window: height and width of the window, one int for both.
  """
  return _windows(x, window).max((2, 4))


def _windows(x: Array, window: int | Pair) -> Array:
  """[N,H,W,C] → [N, H//h, h, W//w, w, C]."""
  h, w = (window, window) if isinstance(window, int) else window
  n, height, width, c = x.shape
  rows, columns = height // h, width // w
  return x[:, : rows * h, : columns * w].reshape(n, rows, h, columns, w, c)


def _max_pool_forward(x: Array, window: int | Pair) -> tuple[Array, tuple[Array, Array]]:
  y = max_pool(x, window)
  return y, (x, y)


def _max_pool_backward(window: int | Pair, saved: tuple[Array, Array], g: Array) -> tuple[Array]:
  x, y = saved
  windows = _windows(x, window)
  spread = lambda a: a[:, :, None, :, None, :]  # noqa: E731
  dx = jnp.where(windows == spread(y), spread(g), 0)
  n, rows, h, columns, w, c = dx.shape
  dx = dx.reshape(n, rows * h, columns * w, c)
  rest = [(0, 0), (0, x.shape[1] - rows * h), (0, x.shape[2] - columns * w), (0, 0)]
  return (jnp.pad(dx, rest),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def gelu(x: Array) -> Array:
  """½x(1 + erf(x/√2)), the exact GELU (Hendrycks & Gimpel 2016), written so that XLA fuses it."""
  return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
  """x [N, C] times kernel [C, O], whose gradient of x does not transpose the kernel for few rows.

  g·kᵀ would be packed from k anew at every step; (k·gᵀ)ᵀ reads k as it lies and turns the small
  side round: 10 to 20 % of a dense step of 16 rows on a CPU, nothing from 128 rows on.
  """
  if x.shape[0] > _FEW_ROWS or kernel.shape[1] > _FEW_UNITS:
    return x @ kernel
  # Sums over the first axis of both are left to XLA's own product, here twice as fast as YNNPACK's.
  return lax.dot_general(lax.optimization_barrier(x.T), kernel, (((0,), (0,)), ((), ())))


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  x, kernel = saved
  if x.shape[0] > _FEW_ROWS:
    return g @ kernel.T, x.T @ g
  turned = lax.dot_general(kernel, g, (((1,), (1,)), ((), ())))
  # Or XLA turns the whole product round again.
  return lax.optimization_barrier(turned).T, x.T @ g


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_backward)


@jax.custom_vjp
def lookup(table: Array, ids: Array) -> Array:
  """Rows of table [V, C] at ids int32 [...], from 0 to below V → [..., C].

  The gradient of a small table is one product with the ids as one-hot rows; that of indexing adds
  up row after row, which XLA:CPU does in a loop.
  """
  return table[ids]


def _lookup_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, None]:
  table, ids = saved
  ids, g = ids.reshape(-1), g.reshape(-1, g.shape[-1])
  if table.shape[0] > _FEW_ENTRIES:
    return jnp.zeros_like(table).at[ids].add(g.astype(table.dtype)), None
  rows = jax.nn.one_hot(ids, table.shape[0], dtype=g.dtype)
  return (rows.T @ g).astype(table.dtype), None


lookup.defvjp(lambda table, ids: (table[ids], (table, ids)), _lookup_backward)


# --- modules --------------------------------------------------------------------------------------


class Dense(nn.Module):
  """`nn.Dense` that multiplies in two dimensions.

  With leading axes [..., C] XLA:CPU fuses the activation into a strided, transposed copy when it
  forms the kernel gradient; flattened to [-1, C] the product is one GEMM each way.
  """

  features: int
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [..., C] → [..., features], in `dtype` (None: the wider of input and parameters)."""
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
    bias = _bias(self)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], self.features)
    return y if bias is None else y + bias


class Embed(nn.Module):
  """A vector per id: parameter `embedding` [entries, features], float32."""

  entries: int
  features: int
  embedding_init: Initializer

  def setup(self):
    shape = (self.entries, self.features)
    self.embedding = self.param('embedding', self.embedding_init, shape, jnp.float32)

  def __call__(self, ids: Array) -> Array:
    """ids int32 [...] → [..., features] float32."""
    return lookup(self.embedding, ids)


class Norm(nn.Module):
  """Each vector brought to variance 1, then scaled: layer norm or RMS norm, all in float32.

  Attributes:
    epsilon: added to the variance.
    centred: whether the mean is taken off first: layer norm (Ba et al. 2016); without it RMS norm
      (Zhang and Sennrich 2019), the square root of the mean square.
    use_bias: whether a bias is added behind.
  """

  epsilon: float
  centred: bool
  use_bias: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [..., C] → [..., C] float32; parameters `scale` [C], `bias` [C]."""
    scale = self.param('scale', nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
    x = x.astype(jnp.float32)
    if self.centred:
      x = x - x.mean(axis=-1, keepdims=True)
    y = x * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + self.epsilon) * scale
    if not self.use_bias:
      return y
    return y + self.param('bias', nn.initializers.zeros_init(), (x.shape[-1],), jnp.float32)


class Output(nn.Module):
  """Logits: x [..., C] → [..., features] float32, by a kernel of its own or by an embedding.

  Attributes:
    features: how many.
    use_bias: whether each has a bias.
    kernel_init: of the kernel.
    dtype: of the product.
  """

  features: int
  use_bias: bool
  kernel_init: Initializer
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, embedding: Array | None) -> Array:
    """`embedding` [features, C] is what a tied model multiplies with; None for `kernel`."""
    if embedding is None:
      kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    else:
      kernel = embedding.T
    rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
    y = product(rows, kernel.astype(self.dtype)).astype(jnp.float32)
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros_init(), (self.features,), jnp.float32)
    return y.reshape(*x.shape[:-1], self.features)


class Conv(nn.Module):
  """`nn.Conv` in two dimensions, without groups or dilation.

  Attributes:
    features: output channels O.
    kernel_size: height and width of the kernel.
    strides: one step for both axes, or a pair.
    padding: 'SAME' or 'VALID'.
    dtype: of the computation; None: the wider of input and parameters.
  """

  features: int
  kernel_size: Pair
  strides: int | Pair = 1
  padding: str = 'SAME'
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [N, H, W, C] → [N, H', W', features]."""
    return _apply(self, conv, x)


class ConvTranspose(nn.Module):
  """`nn.ConvTranspose(transpose_kernel=False)` in two dimensions, without dilation.

  Attributes: as of `Conv`.
  """

  features: int
  kernel_size: Pair
  strides: int | Pair = 1
  padding: str = 'SAME'
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [N, H, W, C] → [N, H', W', features]."""
    return _apply(self, conv_transpose, x)


def _apply(module: Conv | ConvTranspose, function: Callable[..., Array], x: Array) -> Array:
  """Creates linen's parameters of a convolution, casts, convolves, adds the bias."""
  shape = (*module.kernel_size, x.shape[-1], module.features)
  kernel = module.param('kernel', module.kernel_init, shape, module.param_dtype)
  bias = _bias(module)
  x, kernel, bias = promote_dtype(x, kernel, bias, dtype=module.dtype)
  y = function(x, kernel, module.strides, module.padding)
  return y if bias is None else y + bias


def _bias(module: Any) -> Array | None:
  if not module.use_bias:
    return None
  return module.param('bias', module.bias_init, (module.features,), module.param_dtype)
