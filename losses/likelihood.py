"""Likelihoods of an image given a decoder's outputs: the reconstruction term of a VAE.

Each public function makes a `Likelihood` from the config's `variance`, which only `gaussian` reads.
Images are float32 [..., H, W, C] in [0, 1], a decoder's outputs float32 [..., H, W, C, outputs].
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

# Keeps a learned variance from vanishing where an image is fitted exactly: σ ≥ 1/510, half of a
# grey level.
_LOWEST_LOG_VARIANCE = 2 * math.log(1 / 510)


class Likelihood(NamedTuple):
  """One observation model p(x | z).

  Attributes:
    outputs: how many numbers the decoder outputs for every pixel and colour channel.
    log_prob: (images, outputs) -> [...], in nats, summed over pixels and colour channels.
    mean: outputs -> the expected images, in [0, 1].
  """

  outputs: int
  log_prob: Callable[[jax.Array, jax.Array], jax.Array]
  mean: Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def _cross_entropy(pixels: jax.Array, logits: jax.Array) -> jax.Array:
  """Returns −Σ (x·l − log(1 + eˡ)) over P of [..., P], in a form that cannot overflow: [...]."""
  softplus = jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
  return (softplus - pixels * logits).sum(axis=-1)


def _cross_entropy_jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple):
  """Uses the derivative sigmoid(l) − x, which is cheaper than that of softplus by autodiff."""
  (pixels, logits), (dpixels, dlogits) = primals, tangents
  terms = []
  # In training no derivative with respect to the images is needed, and none is computed.
  if not isinstance(dpixels, SymbolicZero):
    terms.append(-logits * dpixels)
  if not isinstance(dlogits, SymbolicZero):
    terms.append((jax.nn.sigmoid(logits) - pixels) * dlogits)
  losses = _cross_entropy(pixels, logits)
  return losses, sum(terms[1:], terms[0]).sum(axis=-1) if terms else jnp.zeros_like(losses)


_cross_entropy.defjvp(_cross_entropy_jvp, symbolic_zeros=True)


def _flat(images: jax.Array) -> jax.Array:
  """Reshapes [..., H, W, C] to [..., P]: a CPU sums over one axis faster than over three."""
  return images.reshape(*images.shape[:-3], -1)


def bernoulli(variance: float) -> Likelihood:
  """Returns the Bernoulli likelihood of binary pixels (Kingma and Welling 2014, appendix C.1).

  For grey pixels this is the cross-entropy, which is not a normalised likelihood.
  """
  del variance

  def log_prob(images: jax.Array, outputs: jax.Array) -> jax.Array:
    logits = _flat(outputs[..., 0])
    # Broadcast here, because the derivative above needs pixels and logits of one shape.
    return -_cross_entropy(jnp.broadcast_to(_flat(images), logits.shape), logits)

  return Likelihood(1, log_prob, lambda outputs: jax.nn.sigmoid(outputs[..., 0]))


def gaussian(variance: float) -> Likelihood:
  """Returns the likelihood of pixels under N(mean, σ²); the mean is a sigmoid of the first output.

  Args:
    variance: σ² of every pixel. If 0, each image has its own learned σ², whose logarithm is the
      mean of the second output over the pixels; at the optimum it is the expected squared error.

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
  """Returns the likelihood of pixels as one of 256 grey levels (van den Oord et al. 2016)."""
  del variance

  def log_prob(images: jax.Array, outputs: jax.Array) -> jax.Array:
    levels = jnp.round(images * 255).astype(jnp.int32)
    chosen = jnp.take_along_axis(outputs, levels[..., None], axis=-1)[..., 0]
    return _flat(chosen - jax.nn.logsumexp(outputs, axis=-1)).sum(axis=-1)

  def mean(outputs: jax.Array) -> jax.Array:
    return jax.nn.softmax(outputs) @ jnp.linspace(0, 1, 256)

  return Likelihood(256, log_prob, mean)
