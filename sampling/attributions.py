"""Attributions of a score to the pixels of an image: saliency, integrated gradients, occlusion.

`score` takes images [B, H, W, C] in [0, 1] and returns [B], one number for each image that depends
on no other image, e.g. the logit of the class predicted for it. It is always called with the same B
images in the same order, so it may close over their labels. It is differentiated in reverse mode.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError

Score = Callable[[jax.Array], jax.Array]


def saliency(score: Score, images: jax.Array) -> jax.Array:
  """Returns |∂score/∂x|, its maximum over the channels (Simonyan et al. 2014, section 3.1).

  Args:
    images: float32 [B, H, W, C] in [0, 1].

  Returns:
    float32 [B, H, W], 0 or more.
  """
  return jnp.abs(_gradient(score, images)).max(axis=-1)


def integrated_gradients(
  score: Score, images: jax.Array, baseline: jax.Array, steps: int
) -> jax.Array:
  """Returns (x − x′)·∫₀¹ ∂score/∂x at x′ + a(x − x′) da (Sundararajan et al. 2017, eq. 1).

  An image's attributions add up to score(x) − score(x′) (proposition 1), up to the error of the
  quadrature. That is Gauss and Legendre's, exact for a score that is a polynomial of degree
  2·steps: few steps suffice for smooth activations; with kinks (ReLU) the error falls as 1/steps.

  Args:
    images: x, float32 [B, H, W, C] in [0, 1].
    baseline: x′, of a shape that broadcasts to that of the images, e.g. a black image.
    steps: points of the quadrature; each takes one gradient, one after another.

  Returns:
    float32 [B, H, W, C], of both signs.

  Raises:
    UserError: `steps` is below 1.
  """
  if steps < 1:
    raise UserError(f'integrated gradients need steps of at least 1, and not {steps}')
  direction = images - baseline
  nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [−1, 1]
  points = jnp.float32((nodes + 1) / 2), jnp.float32(weights / 2)

  def add(total, point):
    fraction, weight = point
    return total + weight * _gradient(score, baseline + fraction * direction), None

  mean, _ = jax.lax.scan(add, jnp.zeros_like(images), points)
  return direction * mean


def occlusion(score: Score, images: jax.Array, window: int, stride: int, value: float) -> jax.Array:
  """Returns the drop of the score when a pixel is occluded (Zeiler and Fergus 2014, section 4.2).

  A square slides over the image; a pixel's value is the mean drop over the squares that cover it.

  Args:
    images: float32 [B, H, W, C] in [0, 1].
    window: the square's side in pixels.
    stride: pixels from one square to the next; the last square is always at the edge.
    value: the value of occluded pixels, e.g. 0.5 for grey.

  Returns:
    float32 [B, H, W], positive where the image speaks for the score.

  Raises:
    UserError: `window` is not from 1 to the shorter side, or `stride` not from 1 to `window` (with
      a larger one no square covers some pixels).
  """
  height, width = images.shape[1:3]
  if not 1 <= window <= min(height, width):
    raise UserError(
      f'an occlusion window of {window} does not fit images of {height}×{width} pixels; take 1 to '
      f'{min(height, width)}'
    )
  if not 1 <= stride <= window:
    raise UserError(
      f'an occlusion stride of {stride} does not suit a window of {window}; take 1 to {window}, so '
      'that every pixel is covered'
    )
  rows, columns = _windows(height, window, stride), _windows(width, window, stride)
  original = score(images)

  def drop(number):
    covered = rows[number // len(columns), :, None] & columns[number % len(columns)]
    return original - score(jnp.where(covered[..., None], value, images))

  drops = jax.lax.map(drop, jnp.arange(len(rows) * len(columns)))
  # The number of squares that cover a pixel is that of its row times that of its column, so the
  # mean can be taken along each axis in turn.
  return jnp.einsum(
    'rcb,rh,cw->bhw',
    drops.reshape(len(rows), len(columns), images.shape[0]),
    rows / rows.sum(axis=0),
    columns / columns.sum(axis=0),
    precision=jax.lax.Precision.HIGHEST,
  )


def _gradient(score: Score, images: jax.Array) -> jax.Array:
  """Returns ∂score/∂x, [B, H, W, C]; each score depends on its own image only."""
  values, pull_back = jax.vjp(score, images)
  # A score of another shape than [B] fails here.
  return pull_back(jnp.ones(images.shape[0], values.dtype))[0]


def _windows(size: int, window: int, stride: int) -> jax.Array:
  """Returns bool [windows, size]: which pixels of a line of `size` each window covers."""
  last = size - window
  starts = np.unique([*range(0, last, stride), last])[:, None]
  pixels = np.arange(size)
  return jnp.asarray((starts <= pixels) & (pixels < starts + window))
