"""Maps of numbers laid over the images that they are about."""

import jax
import jax.numpy as jnp

# Of |map|, a level that one hot pixel does not move.
_PERCENTILE = 99
# What the strongest colour hides of the image, whose edges still show through.
_OPACITY = 0.8
# sRGB, of one luminance, so that neither sign looks stronger.
_POSITIVE = (0.93, 0.20, 0.15)
_NEGATIVE = (0.20, 0.45, 1.00)


def overlay(images: jax.Array, maps: jax.Array) -> jax.Array:
  """Grey images under coloured maps: red where positive, blue where negative, clear at zero.

  A map without negative numbers thus runs from clear to red. The colour is full from the 99th
  percentile of the image's |map| on; a map of zeros leaves the grey image.

  Args:
    images: float32 [B, H, W, C] in [0, 1], C 1 or 3.
    maps: float32 [B, H, W], of any scale.

  Returns:
    float32 [B, H, W, 3] in [0, 1].
  """
  size = jnp.abs(maps)
  top = size.max(axis=(1, 2), keepdims=True)
  full = jnp.percentile(size, _PERCENTILE, axis=(1, 2), keepdims=True)
  # So few pixels may count that the percentile is zero; then the largest does.
  full = jnp.where(full > 0, full, top)
  # At an all-zero map, 0/1.
  strength = _OPACITY * jnp.minimum(size / jnp.where(full > 0, full, 1), 1)[..., None]
  colour = jnp.where(maps[..., None] > 0, jnp.array(_POSITIVE), jnp.array(_NEGATIVE))
  grey = images.mean(axis=-1, keepdims=True)
  return (1 - strength) * grey + strength * colour
