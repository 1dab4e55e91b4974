"""Images inside jit: from bytes to floats, and augmentation, one image at a time.

Randomness comes from fold_in(fold_in(key, epoch), index), so how an example looks in an epoch
depends on nothing else: not on the batch size, its neighbours, the processes or the mesh. Only
mixup looks at a neighbour in the batch.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy import ndimage

import errors

OPTIONS = ('crop', 'flip', 'rotate', 'scale', 'cutout', 'mixup')
# No augmentation: images as they are.
OFF = dict.fromkeys(OPTIONS, 0)


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
      cutout: side in pixels of a black square at a random place (DeVries and Taylor 2017).
      mixup: α of the Beta(α, α) that the share of each image's neighbour is drawn from (Zhang et
        al. 2018, algorithm 1); the batch gets `mixed_label` int32 [B] of the neighbour and
        `mixed_share` float32 [B] of it, from 0 to ½: the nearer label stays `label`.

  Raises:
    UserError: a key of `augment` is unknown or missing, or its value out of range.
  """
  check(augment)
  wanted = [option for option in OPTIONS if augment[option]]
  if 'image' not in batch:
    if wanted:
      raise errors.UserError(
        f'config.data.augment.{wanted[0]} is for images and the data has none: set it to 0.'
      )
    return dict(batch)
  image = batch['image'].astype(jnp.float32) / 255
  if not wanted:
    return {**batch, 'image': image}
  keys = jax.vmap(_example_key, (None, 0, 0))(key, batch['epoch'], batch['index'])
  image = jax.vmap(lambda one, k: _augment(one, k, augment))(image, keys)
  batch = {**batch, 'image': image}
  return mixup(batch, keys, augment['mixup']) if augment['mixup'] else batch


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


def random_cutout(image: jax.Array, key: jax.Array, side: int) -> jax.Array:
  """Returns the image [H, W, C] with a black square whose centre is any pixel; edges cut it off."""
  height, width, _ = image.shape
  row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
  return cutout(image, row - side // 2, column - side // 2, side)


def cutout(image: jax.Array, row: jax.Array, column: jax.Array, side: int) -> jax.Array:
  """Returns the image [H, W, C] with 0 in the square whose upper left corner is (row, column)."""
  y, x = jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])[None, :]
  inside = (row <= y) & (y < row + side) & (column <= x) & (x < column + side)
  return jnp.where(inside[..., None], 0, image)


def mixup(batch: dict[str, jax.Array], keys: jax.Array, alpha: float) -> dict[str, jax.Array]:
  """Returns the batch with each image mixed with the next one's; see `prepare`."""

  def share_of_neighbour(key: jax.Array) -> jax.Array:
    share = jax.random.beta(jax.random.fold_in(key, 4), alpha, alpha)
    return jnp.minimum(share, 1 - share)

  share = jax.vmap(share_of_neighbour)(keys)
  image, weight = batch['image'], share[:, None, None, None]
  mixed = {'image': (1 - weight) * image + weight * jnp.roll(image, -1, axis=0)}
  if 'label' in batch:
    mixed.update(mixed_label=jnp.roll(batch['label'], -1), mixed_share=share)
  return {**batch, **mixed}


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
  # Apart from the others, so that a run of before there was a cutout goes on with the same images.
  cutout_key = jax.random.fold_in(key, 3)
  if augment['crop']:
    image = random_crop(image, crop_key, int(augment['crop']))
  if augment['flip']:
    image = random_flip(image, flip_key)
  if augment['rotate'] or augment['scale']:
    image = random_warp(image, warp_key, augment['rotate'], augment['scale'])
  if augment['cutout']:
    image = random_cutout(image, cutout_key, int(augment['cutout']))
  return image


def _example_key(key: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(key, epoch), index)
