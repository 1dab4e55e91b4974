"""An image as a model may look at it when tested: moved and mirrored."""

import jax
import jax.numpy as jnp

from errors import UserError


def views_of(images: jax.Array, *, mirror: bool, shift: int) -> jax.Array:
  """Returns the images [B, H, W, C] seen V ways, [V, B, H, W, C]; first as they are.

  Args:
    images: any floats; what comes in from outside is 0.
    mirror: whether each view is there mirrored left to right too.
    shift: pixels to move up, down, left and right, four more views; 0 is none.

  Raises:
    UserError: the shift is as large as the image.
  """
  height, width = images.shape[1:3]
  if shift >= min(height, width):
    raise UserError(
      f'a view shifted by {shift} pixels shows nothing of images of {height} × {width}; choose a '
      'smaller shift'
    )
  wide = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
  moves = [(0, 0), (shift, 0), (-shift, 0), (0, shift), (0, -shift)] if shift else [(0, 0)]
  views = jnp.stack(
    [
      wide[:, shift + down : shift + down + height, shift + right : shift + right + width]
      for down, right in moves
    ]
  )
  return jnp.concatenate([views, views[..., ::-1, :]]) if mirror else views
