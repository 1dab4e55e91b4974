"""Heat maps: maps of numbers as colours over the images that they belong to."""

import jax
import jax.numpy as jnp

# The percentile of |map| that gets the full colour; unlike the maximum, one pixel cannot change it.
_PERCENTILE = 99
# Opacity of the full colour, below 1 so that the edges of the image show through.
_OPACITY = 0.8
# sRGB colours of equal luminance, so that neither sign looks stronger.
_POSITIVE = (0.93, 0.20, 0.15)
_NEGATIVE = (0.20, 0.45, 1.00)


def overlay(images: jax.Array, maps: jax.Array) -> jax.Array:
  """Overlays maps on grey images: red where positive, blue where negative, transparent at zero.

  A map without negative numbers thus runs from transparent to red. The colour is full from the 99th
  percentile of the image's |map| on; a map of zeros shows the grey image alone.

  Args:
    images: float32 [B, H, W, C] in [0, 1], C 1 or 3.
    maps: float32 [B, H, W], of any scale.

  Returns:
    float32 [B, H, W, 3] in [0, 1].
  """
  size = jnp.abs(maps)
  top = size.max(axis=(1, 2), keepdims=True)
  full = jnp.percentile(size, _PERCENTILE, axis=(1, 2), keepdims=True)
  # If so few pixels are not zero that the percentile is zero, the maximum gets the full colour.
  full = jnp.where(full > 0, full, top)
  # A map of zeros is divided by 1.
  strength = _OPACITY * jnp.minimum(size / jnp.where(full > 0, full, 1), 1)[..., None]
  colour = jnp.where(maps[..., None] > 0, jnp.array(_POSITIVE), jnp.array(_NEGATIVE))
  grey = images.mean(axis=-1, keepdims=True)
  return (1 - strength) * grey + strength * colour
