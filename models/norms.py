"""Norms: of each vector (layer, RMS) and over a batch (plain, flat, conditional on labels)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from errors import UserError

# Standard deviation of the initial scales and biases of a conditional norm, around 1 and 0.
_spread = nn.initializers.normal(0.3)


class Norm(nn.Module):
  """Layer norm or RMS norm of each vector, computed in float32; parameters `scale` and `bias` [C].

  Attributes:
    epsilon: added to the variance.
    centred: whether the mean is subtracted first: layer norm (Ba et al. 2016); without it RMS norm
      (Zhang and Sennrich 2019), which divides by the root of the mean square.
    use_bias: whether a bias is added.
    dtype: of the result; statistics and parameters are float32.
  """

  epsilon: float
  centred: bool
  use_bias: bool
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x [..., C] → [..., C] in `dtype`."""
    scale = self.param('scale', nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
    x = x.astype(jnp.float32)
    if self.centred:
      x = x - x.mean(axis=-1, keepdims=True)
    y = x * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + self.epsilon) * scale
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros_init(), (x.shape[-1],), jnp.float32)
    return y.astype(self.dtype)


def batch_norm(
  train: bool, dtype: Any, name: str, momentum: float = 0.9, affine: bool = True
) -> nn.BatchNorm:
  """Makes a batch norm: the batch's statistics in training, running averages otherwise.

  Args:
    train: whether the batch's statistics are used, and the running averages moved.
    dtype: of the result; None: the wider of input and parameters.
    name: of the submodule.
    momentum: decay of the running averages.
    affine: whether it has a scale and a bias.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=momentum,
    epsilon=1e-5,
    use_scale=affine,
    use_bias=affine,
    dtype=dtype,
    name=name,
  )


class FlatBatchNorm(nn.Module):
  """Batch norm that reduces all axes but the last as one: sums over three are slow on a CPU.

  Attributes:
    dtype: of the result; parameters and statistics are float32.
  """

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Returns x [..., C] → [..., C]."""
    flat = x.reshape(-1, x.shape[-1])
    return batch_norm(train, self.dtype, 'batch')(flat).reshape(x.shape)


class ConditionalBatchNorm(nn.Module):
  """Batch norm with a scale and a bias for each label (Dumoulin et al. 2017, section 2.2).

  They normalise single images; here the statistics are of the whole batch, whatever its labels.
  The tables start different for every label: if all labels started equal, Adam's small steps would
  separate them slowly, and the discriminator would learn that images and labels do not match long
  before the generator can follow the labels.

  Attributes:
    num_classes: how many labels there are.
    dtype: of the result; parameters are float32.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
    """Returns x [B, H, W, C] → [B, H, W, C], for labels int32 [B].

    Raises:
      UserError: there are no classes.
    """
    check_classes(self.num_classes)
    shape = (self.num_classes, x.shape[-1])
    tables = (
      self.param('scale', lambda *given: 1 + _spread(*given), shape),
      self.param('bias', _spread, shape),
    )
    scale, bias = (jnp.take(table, labels, axis=0)[:, None, None] for table in tables)
    x = batch_norm(train, jnp.float32, 'batch', affine=False)(x)
    return (x * scale + bias).astype(self.dtype)


def check_classes(num_classes: int) -> None:
  """Checks that a module conditioned on labels has classes.

  Raises:
    UserError: there are none.
  """
  if num_classes < 1:
    raise UserError(
      f'num_classes={num_classes} of a module that is conditioned on labels must be at least 1; '
      'take a data set with classes'
    )
