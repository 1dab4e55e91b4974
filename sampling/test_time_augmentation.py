"""Test-time augmentation: shifted and mirrored views of an image."""

import jax
import jax.numpy as jnp

from errors import UserError


def views_of(images: jax.Array, *, mirror: bool, shift: int) -> jax.Array:
  """Returns V views [V, B, H, W, C] of images [B, H, W, C]; the first is the images unchanged.

  Args:
    images: any floats; pixels that are shifted in from outside are 0.
    mirror: whether to add each view mirrored left to right.
    shift: pixels to shift up, down, left and right, for four more views; 0 for none.

  Raises:
    UserError: the shift is as large as the image.
  """
  height, width = images.shape[1:3]
  if shift >= min(height, width):
    raise UserError(
      f'a view shifted by {shift} pixels shows nothing of images of {height} × {width}; choose a '
      'smaller shift'
    )
  padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
  moves = [(0, 0), (shift, 0), (-shift, 0), (0, shift), (0, -shift)] if shift else [(0, 0)]
  views = jnp.stack(
    [
      padded[:, shift + down : shift + down + height, shift + right : shift + right + width]
      for down, right in moves
    ]
  )
  return jnp.concatenate([views, views[..., ::-1, :]]) if mirror else views
