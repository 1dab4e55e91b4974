"""A grid of pairs of images, such as originals above their reconstructions."""

import jax
import jax.numpy as jnp


def stack_pairs(above: jax.Array, below: jax.Array, columns: int) -> jax.Array:
  """Lays out two sets of images so that each image stands above its counterpart.

  Args:
    above: [N, H, W, C].
    below: [N, H, W, C].
    columns: images in a row; fewer where N is smaller.

  Returns:
    [rows, columns, H, W, C], rows of `above` and of `below` in turn; the last two are filled up
    with white images.
  """
  number, *shape = above.shape
  columns = min(columns, number)
  pair = jnp.stack([above, below])
  missing = [(0, 0), (0, -number % columns), *3 * [(0, 0)]]
  rows = jnp.pad(pair, missing, constant_values=1).reshape(2, -1, columns, *shape)
  return rows.swapaxes(0, 1).reshape(-1, columns, *shape)
