"""Converts images to floats and augments them, one image at a time, inside jit.

Each example draws its random numbers from fold_in(fold_in(key, epoch), index). How it is augmented
in an epoch therefore does not depend on the batch size, its neighbours, the number of processes or
the mesh. Only mixup reads a neighbour in the batch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import ndimage

from errors import UserError
from options import Option, complete

Batch = dict[str, jax.Array]


class Augmentation(NamedTuple):
  """One augmentation: its options, its stream of random numbers and its function.

  Attributes:
    options: its options in `config.data.augment`; it is applied unless all are 0 or False.
    stream: the number folded into an example's key, different for every augmentation.
    apply: a pure function (batch, keys [B], *option values) -> batch; the images are float32
      [B, H, W, C] in [0, 1].
  """

  options: Mapping[str, Option]
  stream: int
  apply: Callable[..., Batch]


def prepare(batch: Batch, key: jax.Array, augment: Mapping[str, Any]) -> Batch:
  """Converts `image` from uint8 [B, H, W, C] to float32 in [0, 1] and augments it.

  Args:
    batch: holds `image`, and `index` and `epoch` [B] if any augmentation is on.
    key: a PRNG key, the same for the whole run.
    augment: a value for every option of `OPTIONS`; an augmentation that is off (0 or False) costs
      nothing.

  Returns:
    The batch with float images. With mixup and labels it also holds `mixed_label` int32 [B], the
    label of the neighbour that was mixed in, and `mixed_share` float32 [B], the neighbour's weight
    between 0 and 0.5; `label` is that of the image with the larger weight.

  Raises:
    UserError: an option is unknown, missing or out of range, or there are no images to augment.
  """
  augment = check(augment)
  requested = [name for name in OPTIONS if augment[name]]
  if 'image' not in batch:
    if requested:
      raise UserError(
        f'config.data.augment.{requested[0]} is for images, and the data set has none; set it to 0'
      )
    return dict(batch)
  batch = {**batch, 'image': batch['image'].astype(jnp.float32) / 255}
  if not requested:
    return batch
  keys = jax.vmap(_example_key, (None, 0, 0))(key, batch['epoch'], batch['index'])
  for augmentation in AUGMENTATIONS:
    values = [augment[name] for name in augmentation.options]
    if any(values):
      own_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, augmentation.stream)
      batch = augmentation.apply(batch, own_keys, *values)
  return batch


def check(augment: Mapping[str, Any]) -> dict[str, Any]:
  """Checks that `augment` has exactly the options of `OPTIONS`, each in its range.

  Returns:
    The values, converted to the declared types.

  Raises:
    UserError: an option is unknown, missing or out of range.
  """
  checked = complete(OPTIONS, augment, 'the augmentations', 'config.data.augment.')
  for name in OPTIONS:
    if name not in augment:
      raise UserError(f'config.data.augment.{name} is missing; set it to 0 to turn it off')
  return checked


def check_size(augment: Mapping[str, Any], image_shape: tuple[int, ...] | None) -> None:
  """Raises UserError where an augmentation of images [H, W, C] may leave nothing of them."""
  if image_shape is None:
    return
  height, width = image_shape[:2]
  for name in ('crop', 'cutout'):
    if augment.get(name, 0) >= min(height, width):
      raise UserError(
        f'config.data.augment.{name}={augment[name]} must be below the {min(height, width)} pixels '
        f"of the image's side, or it may leave nothing of {height} × {width}"
      )


def check_neighbours(augment: Mapping[str, Any], rows: int) -> None:
  """Raises UserError where images are to be mixed with others of batches that hold one."""
  if rows == 1 and augment.get('mixup'):
    raise UserError(
      f'config.data.augment.mixup={augment["mixup"]} has no effect with config.data.batch_size=1, '
      'where there is no other image to mix in; set it to 0, or choose a larger batch'
    )


def random_crop(image: jax.Array, key: jax.Array, pixels: int) -> jax.Array:
  """Crops a random window of the image's own size [H, W, C] after padding by `pixels` zeros."""
  down, right = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
  return crop(image, down, right, pixels)


def crop(image: jax.Array, down: jax.Array, right: jax.Array, pixels: int) -> jax.Array:
  """Crops the window at (down, right) of the padded image; (pixels, pixels) changes nothing."""
  padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
  return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
  """Flips the image [H, W, C] left to right with probability 0.5."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_warp(image: jax.Array, key: jax.Array, degrees: float, fraction: float) -> jax.Array:
  """Rotates the image [H, W, C] by up to ±`degrees` and scales it by up to 1 ± `fraction`."""
  turn, grow = jax.random.uniform(key, (2,), minval=-1.0)
  return warp(image, jnp.deg2rad(turn * degrees), 1 + grow * fraction)


def random_cutout(image: jax.Array, key: jax.Array, side: int) -> jax.Array:
  """Sets a square centred on a random pixel of the image [H, W, C] to 0, clipped at the border.

  DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
  """
  height, width, _ = image.shape
  row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
  return cutout(image, row - side // 2, column - side // 2, side)


def cutout(image: jax.Array, row: jax.Array, column: jax.Array, side: int) -> jax.Array:
  """Sets the square of the image [H, W, C] with its upper left corner at (row, column) to 0."""
  y, x = jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])[None, :]
  inside = (row <= y) & (y < row + side) & (column <= x) & (x < column + side)
  return jnp.where(inside[..., None], 0, image)


def warp(image: jax.Array, angle: jax.Array, scale: jax.Array) -> jax.Array:
  """Rotates the image [H, W, C] counter-clockwise by `angle` radians and scales it by `scale`.

  Both act about the centre and in one bilinear interpolation; outside the image it reads 0.
  """
  height, width, _ = image.shape
  middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
  y, x = jnp.meshgrid(jnp.arange(height) - middle_y, jnp.arange(width) - middle_x, indexing='ij')
  cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
  # The source of each output pixel, by the inverse rotation. The y axis points down.
  sources = [cos * y + sin * x + middle_y, cos * x - sin * y + middle_x]
  sample = jax.vmap(lambda plane: ndimage.map_coordinates(plane, sources, order=1), -1, -1)
  return sample(image)


def mixup(batch: Batch, keys: jax.Array, alpha: float) -> Batch:
  """Mixes each image of a batch with the next one; see `prepare` for the entries this adds.

  The neighbour's weight is drawn from Beta(alpha, alpha), and w > 0.5 is replaced by 1 - w (Zhang
  et al. 2018, "mixup: Beyond Empirical Risk Minimization", algorithm 1).

  Args:
    batch: holds `image` float32 [B, H, W, C] and, if the data set has classes, `label` int32 [B].
    keys: one PRNG key per example, [B].
    alpha: the parameter of the Beta distribution, above 0.
  """

  def neighbour_share(key: jax.Array) -> jax.Array:
    share = jax.random.beta(key, alpha, alpha)
    return jnp.minimum(share, 1 - share)

  share = jax.vmap(neighbour_share)(keys)
  image, weight = batch['image'], share[:, None, None, None]
  mixed = {'image': (1 - weight) * image + weight * jnp.roll(image, -1, axis=0)}
  if 'label' in batch:
    mixed.update(mixed_label=jnp.roll(batch['label'], -1), mixed_share=share)
  return {**batch, **mixed}


def _example_key(key: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(key, epoch), index)


def _one_by_one(function: Callable[..., jax.Array]) -> Callable[..., Batch]:
  """Turns a function (image, key, *values) of one image into an `Augmentation.apply`."""

  def apply(batch: Batch, keys: jax.Array, *values: Any) -> Batch:
    image = jax.vmap(lambda image, key: function(image, key, *values))(batch['image'], keys)
    return {**batch, 'image': image}

  return apply


# In the order of application. A new augmentation takes the next free stream and leaves the others
# alone, so that the same seed gives the same images.
AUGMENTATIONS = (
  Augmentation(
    {
      'crop': Option(
        int,
        0,
        'Pixels of zero padding on each side, from which a window of the original size is cropped '
        'at random.',
        low=0,
      )
    },
    0,
    _one_by_one(random_crop),
  ),
  Augmentation(
    {'flip': Option(bool, False, 'Flips each image left to right with probability ½.')},
    1,
    _one_by_one(lambda image, key, flip: random_flip(image, key)),
  ),
  Augmentation(
    {
      'rotate': Option(
        float, 0.0, 'The largest rotation in degrees, in either direction.', low=0, high=180
      ),
      'scale': Option(
        float, 0.0, 'The largest relative change of size: 0.1 is 0.9 to 1.1.', low=0, below=1
      ),
    },
    2,
    _one_by_one(random_warp),
  ),
  Augmentation(
    {
      'cutout': Option(
        int, 0, 'Side in pixels of a square at a random position that is set to 0.', low=0
      )
    },
    3,
    _one_by_one(random_cutout),
  ),
  Augmentation(
    {
      'mixup': Option(
        float, 0.0, "The α of the Beta(α, α) from which a neighbour's weight is drawn.", low=0
      )
    },
    4,
    mixup,
  ),
)
OPTIONS = {
  name: option for augmentation in AUGMENTATIONS for name, option in augmentation.options.items()
}
# The values that leave every augmentation off.
OFF = {name: option.default for name, option in OPTIONS.items()}
