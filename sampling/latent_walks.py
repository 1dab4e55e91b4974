"""Walks through a latent space: what a decoder makes of lines, axes and a plane.

`decode` takes latents [N, Z] and returns images [N, H, W, C] in [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Decode = Callable[[jax.Array], jax.Array]


def interpolate(decode: Decode, starts: jax.Array, ends: jax.Array, steps: int) -> jax.Array:
  """Images on the straight lines between latents [N, Z]: [N, steps, H, W, C], with both ends."""
  share = jnp.linspace(0, 1, steps)[None, :, None]
  return _decode_grid(decode, (1 - share) * starts[:, None] + share * ends[:, None])


def shares(steps: int) -> tuple[str, ...]:
  """The words for the columns of `interpolate`: how much of the way is done, in percent."""
  return tuple(f'{100 * step / (steps - 1):.0f} %' for step in range(steps))


def traverse(
  decode: Decode, centre: jax.Array, dimensions: jax.Array, values: jax.Array
) -> jax.Array:
  """Images while one coordinate of `centre` [Z] takes each of `values` [S]: [D, S, H, W, C].

  Args:
    dimensions: int [D], the coordinate that each row moves.
  """

  def row(dimension):
    return jax.vmap(lambda value: centre.at[dimension].set(value))(values)

  return _decode_grid(decode, jax.vmap(row)(dimensions))


def manifold(decode: Decode, side: int) -> jax.Array:
  """Images of a plane of latents, [side, side, H, W, C], a standard normal's quantiles apart.

  The second coordinate grows upwards (Kingma and Welling 2014, figure 4).
  """
  quantiles = jax.scipy.stats.norm.ppf((jnp.arange(side) + 0.5) / side)
  x, y = jnp.meshgrid(quantiles, quantiles[::-1])
  return _decode_grid(decode, jnp.stack([x, y], axis=-1))


def _decode_grid(decode: Decode, latents: jax.Array) -> jax.Array:
  """[R, S, Z] to [R, S, H, W, C]."""
  images = decode(latents.reshape(-1, latents.shape[-1]))
  return images.reshape(*latents.shape[:2], *images.shape[1:])
