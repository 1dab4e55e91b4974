"""Dense networks: generator, discriminator, encoder and decoder of fully connected layers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError, choose
from models.layers import MOST_LAYERS, Dense
from models.norms import batch_norm
from options import option


def _gated(x: jax.Array) -> jax.Array:
  """One half of x [..., C] times the sigmoid of the other: [..., C / 2] (Dauphin et al. 2017)."""
  if x.shape[-1] % 2:
    raise UserError(
      f'activation=glu gates one half of the units with the other, and {x.shape[-1]} is odd; make '
      'widths even'
    )
  return jax.nn.glu(x)


# The functions of `jax.nn` that map every number by itself, and `glu`.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  **{
    name: getattr(jax.nn, name)
    for name in (
      'relu', 'leaky_relu', 'gelu', 'silu', 'tanh', 'sigmoid', 'elu', 'celu', 'selu', 'relu6',
      'mish', 'swish', 'softplus', 'soft_sign', 'squareplus', 'log_sigmoid', 'hard_sigmoid',
      'hard_silu', 'hard_swish', 'hard_tanh', 'sparse_plus', 'sparse_sigmoid', 'identity',
    )
  },
  'glu': _gated,
}  # fmt: skip


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """Returns the activation `name` of `ACTIVATIONS`, e.g. `relu`, `leaky_relu`, `silu`.

  All but `glu` return an array of the shape they are given.

  Raises:
    UserError: there is none of this name.
  """
  return choose(ACTIVATIONS, name, 'activation')


class Generator(nn.Module):
  """Dense generator of a GAN: latents `[B, Z]` to images `[B, *image_shape]` in [0, 1].

  Attributes:
    image_shape: (H, W, C), given by the data.
    num_classes: how many labels there are, given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Units of the hidden layers, from the latents to the image.', low=1, longest=MOST_LAYERS
  )
  activation: str = option('Activation of the hidden layers.', choices=tuple(ACTIVATIONS))
  image_shape: Sequence[int]
  num_classes: int = 0
  norm: str = option(
    "Before every activation: 'batch' normalisation, with the statistics of the batch in training "
    "and averaged ones in sampling, or 'none'.",
    choices=('batch', 'none'),
    default='none',
  )
  embedding_size: int = option(
    "Length of a label's embedding; used only where there are labels, and then at least 1.",
    low=0,
    default=0,
  )
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents: jax.Array, labels: jax.Array | None, train: bool) -> jax.Array:
    """Generates images; `labels`, int32 [B] or None, are embedded and appended to the latents."""
    x = _with_labels(latents, labels, self)
    normalised = self.norm == 'batch'
    for i, width in enumerate(self.widths):
      x = nn.Dense(width, use_bias=not normalised, dtype=self.dtype, name=f'hidden_{i}')(x)
      if normalised:
        x = batch_norm(train, self.dtype, f'norm_{i}')(x)
      x = activation(self.activation)(x)
    x = nn.Dense(math.prod(self.image_shape), dtype=self.dtype, name='output')(x)
    return nn.sigmoid(x.astype(jnp.float32)).reshape(-1, *self.image_shape)


class Discriminator(nn.Module):
  """Dense discriminator of a GAN: images `[B, H, W, C]` in [0, 1] to logits `[B]` float32.

  Attributes:
    num_classes: how many labels there are, given by the data.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Units of the hidden layers, from the image to the logit.', low=1, longest=MOST_LAYERS
  )
  activation: str = option('Activation of the hidden layers.', choices=tuple(ACTIVATIONS))
  dropout: float = option(
    'Fraction of the hidden units dropped in training.', low=0, below=1, default=0.0
  )
  minibatch_stddev: int = option(
    'Examples in a group. The standard deviation within it, the mean over the units, is one more '
    'input of the last hidden layer (minibatch standard deviation), which shows a generator that '
    'repeats itself. 0 for none; a batch that the number does not divide is one group.',
    low=0,
    default=0,
  )
  num_classes: int = 0
  embedding_size: int = option(
    "Length of a label's embedding; used only where there are labels, and then at least 1.",
    low=0,
    default=0,
  )
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, labels: jax.Array | None, train: bool) -> jax.Array:
    """Scores images; `labels`, int32 [B] or None, are embedded and appended to the pixels."""
    x = _with_labels(images.reshape(images.shape[0], -1), labels, self)
    for i, width in enumerate(self.widths):
      if self.minibatch_stddev and i == len(self.widths) - 1:
        x = _with_deviation(x, self.minibatch_stddev)
      x = activation(self.activation)(nn.Dense(width, dtype=self.dtype, name=f'hidden_{i}')(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(1, dtype=self.dtype, name='output')(x)[:, 0].astype(jnp.float32)


def _with_deviation(x: jax.Array, group: int) -> jax.Array:
  """Appends to x [B, D] the standard deviation in its group of examples, the mean over D.

  Karras et al. 2018, section 3: "minibatch standard deviation".
  """
  batch = x.shape[0]
  group = group if batch % group == 0 else batch
  grouped = x.astype(jnp.float32).reshape(batch // group, group, -1)
  # The derivative of a root is infinite at 0.
  deviation = jnp.sqrt(grouped.var(1) + 1e-8).mean(-1)
  return jnp.concatenate([x, jnp.repeat(deviation, group)[:, None].astype(x.dtype)], -1)


def _with_labels(
  inputs: jax.Array, labels: jax.Array | None, network: Generator | Discriminator
) -> jax.Array:
  """Appends an embedding of `labels` to `inputs` [B, D] (Mirza and Osindero 2014, section 3).

  Embeddings are N(0, 1) at first, like the latents. Without labels there are no parameters.

  Raises:
    UserError: the network has no classes or no size of embedding, and there are labels.
  """
  inputs = inputs.astype(network.dtype)
  if labels is None:
    return inputs
  for field in ('num_classes', 'embedding_size'):
    if getattr(network, field) < 1:
      raise UserError(
        f'mlp.{type(network).__name__} is conditioned on labels, so its '
        f'{field}={getattr(network, field)} must be at least 1'
      )
  embed = nn.Embed(
    network.num_classes,
    network.embedding_size,
    embedding_init=nn.initializers.normal(1.0),
    dtype=network.dtype,
    name='label',
  )
  return jnp.concatenate([inputs, embed(labels)], axis=-1)


class Encoder(nn.Module):
  """Dense encoder of a VAE: images `[B, H, W, C]` in [0, 1] to a Gaussian over latents.

  Attributes:
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Units of the hidden layers, from the image to the latents.', low=1, longest=MOST_LAYERS
  )
  activation: str = option(
    'Activation of the hidden layers; `glu` gates one half of the units with the other, so it '
    'takes twice the width.',
    choices=tuple(ACTIVATIONS),
  )
  latent_size: int = option('Z, how many numbers a latent has.', low=1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, condition: jax.Array, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the log-variance, both float32 [B, Z].

    Args:
      images: [B, H, W, C].
      condition: [B, D], appended to the pixels; D is 0 where there is none.
      train: has no effect.
    """
    del train
    x = jnp.concatenate([images.reshape(images.shape[0], -1), condition], axis=-1)
    x = x.astype(self.dtype)
    for i, width in enumerate(self.widths):
      x = activation(self.activation)(Dense(width, dtype=self.dtype, name=f'hidden_{i}')(x))
    x = Dense(2 * self.latent_size, dtype=self.dtype, name='output')(x).astype(jnp.float32)
    return x[:, : self.latent_size], x[:, self.latent_size :]


class Decoder(nn.Module):
  """Dense decoder of a VAE: latents `[B, Z]` to the parameters of a likelihood of images.

  Attributes:
    image_shape: (H, W, C), given by the data.
    outputs: numbers per pixel and colour, set by the objective.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Units of the hidden layers, from the latents to the image.', low=1, longest=MOST_LAYERS
  )
  activation: str = option(
    "Activation of the hidden layers, as the encoder's.", choices=tuple(ACTIVATIONS)
  )
  image_shape: Sequence[int]
  outputs: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
    """Returns [B, H, W, C, outputs] float32.

    Args:
      latents: [B, Z].
      condition: [B, D], appended to the latents; D is 0 where there is none.
      train: has no effect.
    """
    del train
    x = jnp.concatenate([latents, condition], axis=-1).astype(self.dtype)
    for i, width in enumerate(self.widths):
      x = activation(self.activation)(Dense(width, dtype=self.dtype, name=f'hidden_{i}')(x))
    x = Dense(math.prod(self.image_shape) * self.outputs, dtype=self.dtype, name='output')(x)
    return x.astype(jnp.float32).reshape(-1, *self.image_shape, self.outputs)


class MLP(nn.Module):
  """Dense classifier or regression: inputs `[B, …]` to `[B, outputs]` float32.

  Attributes:
    outputs: how many numbers per example, set by the objective.
    dtype: of the computation; parameters are float32.
  """

  widths: Sequence[int] = option(
    'Units of the hidden layers; none makes a linear model.', low=1, longest=MOST_LAYERS
  )
  activation: str = option('Activation of the hidden layers.', choices=tuple(ACTIVATIONS))
  dropout: float = option(
    'Fraction of the hidden units dropped in training.', low=0, below=1, default=0.0
  )
  normalise: bool = option(
    'Whether each input is first brought to mean 0 and variance 1, by the batch in training and by '
    'running averages otherwise: for tables, whose columns have units.',
    default=False,
  )
  outputs: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
    x = inputs.reshape(inputs.shape[0], -1)
    if self.normalise:
      x = batch_norm(train, None, 'normalise', momentum=0.99, affine=False)(x)
    x = x.astype(self.dtype)
    for i, width in enumerate(self.widths):
      x = activation(self.activation)(Dense(width, dtype=self.dtype, name=f'hidden_{i}')(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Dense(self.outputs, dtype=self.dtype, name='output')(x).astype(jnp.float32)
