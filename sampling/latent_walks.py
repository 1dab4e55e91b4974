"""Latent walks: images decoded along lines, along axes and over a plane of a latent space.

`decode` takes latents [N, Z] and returns images [N, H, W, C] in [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Decode = Callable[[jax.Array], jax.Array]


def interpolate(decode: Decode, starts: jax.Array, ends: jax.Array, steps: int) -> jax.Array:
  """Decodes points on lines between latents [N, Z], both ends included: [N, steps, H, W, C]."""
  fraction = jnp.linspace(0, 1, steps)[None, :, None]
  return _decode_grid(decode, (1 - fraction) * starts[:, None] + fraction * ends[:, None])


def shares(steps: int) -> tuple[str, ...]:
  """The words for the columns of `interpolate`: how much of the way is done, in percent."""
  return tuple(f'{100 * step / (steps - 1):.0f} %' for step in range(steps))


def traverse(
  decode: Decode, centre: jax.Array, dimensions: jax.Array, values: jax.Array
) -> jax.Array:
  """Decodes `centre` [Z] with one coordinate set to each of `values` [S]: [D, S, H, W, C].

  Args:
    dimensions: int [D], the coordinate that each row changes.
  """

  def row(dimension):
    return jax.vmap(lambda value: centre.at[dimension].set(value))(values)

  return _decode_grid(decode, jax.vmap(row)(dimensions))


def manifold(decode: Decode, side: int) -> jax.Array:
  """Decodes a grid over a 2-D latent space at a normal's quantiles: [side, side, H, W, C].

  The second coordinate grows upwards (Kingma and Welling 2014, figure 4).
  """
  quantiles = jax.scipy.stats.norm.ppf((jnp.arange(side) + 0.5) / side)
  x, y = jnp.meshgrid(quantiles, quantiles[::-1])
  return _decode_grid(decode, jnp.stack([x, y], axis=-1))


def _decode_grid(decode: Decode, latents: jax.Array) -> jax.Array:
  """Decodes latents [R, S, Z] to images [R, S, H, W, C]."""
  images = decode(latents.reshape(-1, latents.shape[-1]))
  return images.reshape(*latents.shape[:2], *images.shape[1:])
