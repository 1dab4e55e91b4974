"""Linen layers on top of `models.kernels`: linen's parameters and results, in fast forms.

`Conv`, `ConvTranspose`, `Dense` and `Embed` stand for the layers of these names in `flax.linen`
(same parameter names, shapes, initialisers and results). `Output` makes logits, with a kernel of
its own or an embedding's. Norms are in `models.norms`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from errors import UserError
from models.kernels.convolution import Pair, conv, conv_transpose
from models.kernels.dense import product
from models.kernels.lookup import lookup

Initializer = Callable[..., Array]

# The name of what a dense layer's product returns, for policies of `jax.checkpoint`: those that
# look for `dot_general` do not find the one inside of a function with its own derivative.
PRODUCT = 'product'

# Most layers or blocks of a network: they are traced one by one, and a slip of the keyboard must
# not trace for hours.
MOST_LAYERS = 1000


class Dense(nn.Module):
  """`nn.Dense` that multiplies in two dimensions.

  With leading axes [..., C] XLA:CPU fuses the activation into a strided, transposed copy when it
  forms the kernel gradient; flattened to [-1, C] the product is one GEMM each way.

  Attributes:
    features: length of an output vector.
    use_bias: whether a bias is added.
    dtype: of the computation; None: the wider of input and parameters.
    param_dtype: of the parameters.
    kernel_init: initialiser of the kernel [C, features].
    bias_init: initialiser of the bias [features].
  """

  features: int
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns x [..., C] → [..., features], in `dtype`."""
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
    bias = _bias(self)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = checkpoint_name(product(x.reshape(-1, x.shape[-1]), kernel), PRODUCT)
    y = y.reshape(*x.shape[:-1], self.features)
    return y if bias is None else y + bias


class Embed(nn.Module):
  """One learned vector per id; parameter `embedding` [entries, features], float32.

  Attributes:
    entries: how many ids there are.
    features: length of a vector.
    embedding_init: initialiser of the vectors.
  """

  entries: int
  features: int
  embedding_init: Initializer

  def setup(self):
    shape = (self.entries, self.features)
    self.embedding = self.param('embedding', self.embedding_init, shape, jnp.float32)

  def __call__(self, ids: Array) -> Array:
    """Returns the vectors of ids int32 [...] → [..., features] float32."""
    return lookup(self.embedding, ids)


class Output(nn.Module):
  """Logits from a kernel of its own or from an embedding (Press and Wolf 2017).

  Attributes:
    features: how many logits there are.
    use_bias: whether each logit has a bias.
    kernel_init: initialiser of the kernel.
    dtype: of the product.
  """

  features: int
  use_bias: bool
  kernel_init: Initializer
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, embedding: Array | None, wide: bool = True) -> Array:
    """Returns x [..., C] → [..., features].

    Args:
      x: [..., C].
      embedding: [features, C], multiplied with instead of a kernel in a tied model; None for the
        layer's own parameter `kernel`.
      wide: whether the logits are float32; else they stay in `dtype`, as the product made them.
    """
    if embedding is None:
      kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    else:
      kernel = embedding.T
    rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
    y = product(rows, kernel.astype(self.dtype))
    if wide or self.use_bias:
      y = y.astype(jnp.float32)
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros_init(), (self.features,), jnp.float32)
    y = y if wide else y.astype(self.dtype)
    return y.reshape(*x.shape[:-1], self.features)


def per_token(
  module: nn.Module,
  function: Callable[[nn.Module, Array, Array], Array],
  x: Array,
  targets: Array,
  chunks: int,
) -> Array:
  """Returns `function(module, x, targets)` float32 [B, T], a chunk of the tokens at a time.

  With more than one chunk, what `function` computes is computed again for the gradient, so that
  only that of one chunk is in memory.

  Args:
    module: whose layers `function` calls; they have parameters already.
    function: (module, x [B, t, C], targets [B, t]) -> float32 [B, t], of each token alone.
    x: [B, T, C].
    targets: int32 [B, T]; a function of what is no target, below 0, is 0.
    chunks: how many; the last one is filled up where they do not divide T.
  """
  if chunks == 1:
    return function(module, x, targets)
  length = x.shape[1]
  chunks = min(chunks, length)
  size = -(-length // chunks)
  missing = size * chunks - length
  # Cut along the tokens: a batch may be split over devices.
  x = jnp.pad(x, ((0, 0), (0, missing), (0, 0))).reshape(x.shape[0], chunks, size, x.shape[2])
  targets = jnp.pad(targets, ((0, 0), (0, missing)), constant_values=-1)
  targets = targets.reshape(x.shape[:3])
  part = nn.remat(function, prevent_cse=False)

  def one(module: nn.Module, carry: None, chunk: tuple[Array, Array]) -> tuple[None, Array]:
    return carry, part(module, *chunk)

  over_chunks = nn.scan(one, variable_broadcast='params', split_rngs={'params': False})
  _, found = over_chunks(module, None, (x.swapaxes(0, 1), targets.swapaxes(0, 1)))
  return found.swapaxes(0, 1).reshape(x.shape[0], -1)[:, :length]


class Conv(nn.Module):
  """`nn.Conv` in two dimensions, without groups or dilation.

  Attributes:
    features: output channels O.
    kernel_size: height and width of the kernel.
    strides: one step for both axes, or a pair.
    padding: 'SAME' or 'VALID'.
    use_bias: whether a bias is added.
    dtype: of the computation; None: the wider of input and parameters.
    param_dtype: of the parameters.
    kernel_init: initialiser of the kernel [h, w, C, features].
    bias_init: initialiser of the bias [features].
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
    """Returns x [N, H, W, C] → [N, H', W', features]."""
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
    """Returns x [N, H, W, C] → [N, H', W', features]."""
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


def require_widths(widths: Sequence[int], where: str) -> None:
  """Checks that a network that starts from a map of `widths[0]` channels has this entry.

  Args:
    widths: channels of its maps.
    where: its module in the config, e.g. 'config.modules.decoder'.

  Raises:
    UserError: there is no entry.
  """
  if not widths:
    raise UserError(f'{where}.widths is empty, and its first map has the first width; give it one')
