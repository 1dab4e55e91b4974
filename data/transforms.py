"""Images inside jit: from bytes to floats, and augmentation, one image at a time.

Randomness comes from fold_in(fold_in(key, epoch), index), so how an example looks in an epoch
depends on nothing else: not on the batch size, its neighbours, the processes or the mesh.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy import ndimage

import errors

OPTIONS = ('crop', 'flip', 'rotate', 'scale')


def prepare(
  batch: dict[str, jax.Array], key: jax.Array, augment: Mapping[str, float]
) -> dict[str, jax.Array]:
  """Returns the batch with image uint8 [B, H, W, C] as float32 in [0, 1], augmented.

  Args:
    batch: has `image`, and `index` and `epoch` [B] where anything is augmented.
    key: a PRNG key, the same for the whole run.
    augment: exactly these; 0 or False is off and costs nothing.
      crop: pixels of black border, from which a window of the old size is cut at random.
      flip: whether half of the images are mirrored left to right.
      rotate: the most degrees to turn by, either way.
      scale: the largest change of size, 0.1 for factors from 0.9 to 1.1; below 1.

  Raises:
    UserError: a key of `augment` is unknown or missing, or its value out of range.
  """
  check(augment)
  image = batch['image'].astype(jnp.float32) / 255
  if any(augment[option] for option in OPTIONS):
    keys = jax.vmap(_example_key, (None, 0, 0))(key, batch['epoch'], batch['index'])
    image = jax.vmap(lambda one, k: _augment(one, k, augment))(image, keys)
  return {**batch, 'image': image}


def check(augment: Mapping[str, float]) -> None:
  """Raises UserError unless `augment` has exactly the known options, each in its range."""
  for option in augment:
    if option not in OPTIONS:
      raise errors.UserError(
        f'config.data.augment has no option "{option}"{errors.nearest(option, OPTIONS)}; it has '
        f'{", ".join(OPTIONS)}.'
      )
  for option in OPTIONS:
    if option not in augment:
      raise errors.UserError(f'config.data.augment.{option} is missing: set it, 0 is off.')
    if augment[option] < 0 or (option == 'scale' and augment[option] >= 1):
      raise errors.UserError(
        f'config.data.augment.{option}={augment[option]} is out of range: choose 0 or more'
        f'{" and less than 1" if option == "scale" else ""}.'
      )


def random_crop(image: jax.Array, key: jax.Array, pixels: int) -> jax.Array:
  """Returns a random window [H, W, C] of the image [H, W, C] in a zero border of `pixels`."""
  down, right = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
  return crop(image, down, right, pixels)


def crop(image: jax.Array, down: jax.Array, right: jax.Array, pixels: int) -> jax.Array:
  """Returns the window at (down, right) of the image in its border; at `pixels` it is the image."""
  padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
  return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
  """Returns the image [H, W, C], or with probability a half its mirror image left to right."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_warp(image: jax.Array, key: jax.Array, degrees: float, fraction: float) -> jax.Array:
  """Returns the image [H, W, C] turned by up to `degrees` and scaled by up to `fraction`."""
  turn, grow = jax.random.uniform(key, (2,), minval=-1.0)
  return warp(image, jnp.deg2rad(turn * degrees), 1 + grow * fraction)


def warp(image: jax.Array, angle: jax.Array, scale: jax.Array) -> jax.Array:
  """Returns the image [H, W, C] turned counter-clockwise by `angle` radians, `scale` times as big.

  About the centre, bilinear, in one pass; what comes from outside is 0.
  """
  height, width, _ = image.shape
  middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
  y, x = jnp.meshgrid(jnp.arange(height) - middle_y, jnp.arange(width) - middle_x, indexing='ij')
  cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
  # For each output pixel, where it comes from: the inverse turn. The y axis points down.
  places = [cos * y + sin * x + middle_y, cos * x - sin * y + middle_x]
  sample = jax.vmap(lambda plane: ndimage.map_coordinates(plane, places, order=1), -1, -1)
  return sample(image)


def _augment(image: jax.Array, key: jax.Array, augment: Mapping[str, float]) -> jax.Array:
  crop_key, flip_key, warp_key = jax.random.split(key, 3)
  if augment['crop']:
    image = random_crop(image, crop_key, int(augment['crop']))
  if augment['flip']:
    image = random_flip(image, flip_key)
  if augment['rotate'] or augment['scale']:
    image = random_warp(image, warp_key, augment['rotate'], augment['scale'])
  return image


def _example_key(key: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(key, epoch), index)
