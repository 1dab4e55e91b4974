"""How likely an image is, given what a decoder puts out: the reconstruction term of a VAE.

Each entry makes a `Likelihood` from the config's `variance`, which only the Gaussian reads. Images
are float32 [..., H, W, C] in [0, 1], a decoder's outputs float32 [..., H, W, C, outputs].
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Keeps a learned variance from running away where an image is fitted exactly: σ ≥ 1/510, half of
# one grey level.
_LOWEST_LOG_VARIANCE = 2 * math.log(1 / 510)


class Likelihood(NamedTuple):
  """One observation model p(x | z).

  Attributes:
    outputs: numbers that the decoder gives for every pixel and colour.
    log_prob: (images, outputs) -> [...], in nats, summed over pixels and colours.
    mean: outputs -> the expected images, in [0, 1].
  """

  outputs: int
  log_prob: Callable[[jax.Array, jax.Array], jax.Array]
  mean: Callable[[jax.Array], jax.Array]


@jax.custom_vjp
def _cross_entropy(pixels: jax.Array, logits: jax.Array) -> jax.Array:
  """−Σ (x·l − log(1 + eˡ)) of [..., P], which neither overflows nor takes the logarithm of 0."""
  softplus = jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
  return (softplus - pixels * logits).sum(axis=-1)


def _cross_entropy_forward(pixels: jax.Array, logits: jax.Array):
  return _cross_entropy(pixels, logits), (pixels, logits)


def _cross_entropy_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array):
  """The derivative sigmoid(l) − x, cheaper than what differentiating softplus makes of it."""
  pixels, logits = saved
  return -g[..., None] * logits, g[..., None] * (jax.nn.sigmoid(logits) - pixels)


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def _flat(images: jax.Array) -> jax.Array:
  """[..., H, W, C] to [..., P]: on a CPU a sum over one axis is twice as fast as over three."""
  return images.reshape(*images.shape[:-3], -1)


def bernoulli(variance: float) -> Likelihood:
  """Pixels as coin flips (Kingma and Welling 2014, appendix C.1).

  For grey pixels this is the cross-entropy, a loss but no likelihood; binarise for that.
  """
  del variance

  def log_prob(images: jax.Array, outputs: jax.Array) -> jax.Array:
    logits = _flat(outputs[..., 0])
    # Broadcast out here: a rule written by hand has to return gradients of its inputs' shapes.
    return -_cross_entropy(jnp.broadcast_to(_flat(images), logits.shape), logits)

  return Likelihood(1, log_prob, lambda outputs: jax.nn.sigmoid(outputs[..., 0]))


def gaussian(variance: float) -> Likelihood:
  """Pixels as N(mean, σ²); the mean is a sigmoid of the first output.

  Args:
    variance: σ², the same for all; 0 learns one for each image, the mean of the second output over
      its pixels being log σ². At the optimum it is the squared error the model expects there.

  Raises:
    ValueError: the variance is negative.
  """
  if variance < 0:
    raise ValueError(f'variance={variance} must be 0 (learned) or more')

  def log_prob(images: jax.Array, outputs: jax.Array) -> jax.Array:
    errors = jnp.square(_flat(images - jax.nn.sigmoid(outputs[..., 0]))).sum(axis=-1)
    if variance:
      log_variance = jnp.float32(math.log(variance))
    else:
      log_variance = _flat(outputs[..., 1]).mean(axis=-1)
      log_variance = _LOWEST_LOG_VARIANCE + jax.nn.softplus(log_variance - _LOWEST_LOG_VARIANCE)
    pixels = math.prod(outputs.shape[-4:-1])
    scaled = errors * jnp.exp(-log_variance)
    return -0.5 * (scaled + pixels * (log_variance + math.log(2 * math.pi)))

  return Likelihood(1 if variance else 2, log_prob, lambda out: jax.nn.sigmoid(out[..., 0]))


def categorical(variance: float) -> Likelihood:
  """Every pixel as one of 256 grey levels, with a logit for each (van den Oord et al. 2016)."""
  del variance

  def log_prob(images: jax.Array, outputs: jax.Array) -> jax.Array:
    levels = jnp.round(images * 255).astype(jnp.int32)
    chosen = jnp.take_along_axis(outputs, levels[..., None], axis=-1)[..., 0]
    return _flat(chosen - jax.nn.logsumexp(outputs, axis=-1)).sum(axis=-1)

  def mean(outputs: jax.Array) -> jax.Array:
    return jax.nn.softmax(outputs) @ jnp.linspace(0, 1, 256)

  return Likelihood(256, log_prob, mean)
