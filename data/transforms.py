"""Images inside jit: from bytes to floats, and augmentation, one image at a time.

Randomness comes from fold_in(fold_in(key, epoch), index), so how an example looks in an epoch
depends on nothing else: not on the batch size, its neighbours, the processes or the mesh. Only
mixup looks at a neighbour in the batch.
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
  """One augmentation; its entry in `AUGMENTATIONS` is all that the rest of the project reads.

  Attributes:
    options: those under `config.data.augment` that it takes; it is on if any is not 0 or False.
    stream: the number of its stream of random numbers, which no other augmentation has.
    apply: (batch, keys [B], *values of the options) -> batch; pure. The images are float32
      [B, H, W, C] in [0, 1].
  """

  options: Mapping[str, Option]
  stream: int
  apply: Callable[..., Batch]


def prepare(batch: Batch, key: jax.Array, augment: Mapping[str, Any]) -> Batch:
  """Turns image uint8 [B, H, W, C] into float32 in [0, 1], augmented.

  Args:
    batch: has `image`, and `index` and `epoch` [B] where anything is augmented.
    key: a PRNG key, the same for the whole run.
    augment: a value for every option of `OPTIONS`; 0 or False is off and costs nothing.

  Returns:
    The batch with its images; with mixup also `mixed_label` int32 [B] of each image's neighbour
    and `mixed_share` float32 [B] of it, from 0 to ½: the nearer label stays `label`.

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
    The values, as the declared types.

  Raises:
    UserError: an option is unknown, missing or out of range.
  """
  checked = complete(OPTIONS, augment, 'the augmentations', 'config.data.augment.')
  for name in OPTIONS:
    if name not in augment:
      raise UserError(f'config.data.augment.{name} is missing; set it, 0 is off')
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


def random_crop(image: jax.Array, key: jax.Array, pixels: int) -> jax.Array:
  """Cuts a random window [H, W, C] from the image [H, W, C] in a zero border of `pixels`."""
  down, right = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
  return crop(image, down, right, pixels)


def crop(image: jax.Array, down: jax.Array, right: jax.Array, pixels: int) -> jax.Array:
  """Cuts the window at (down, right) from the image in its border; at `pixels` it is the image."""
  padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
  return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
  """Mirrors the image [H, W, C] left to right with probability a half."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_warp(image: jax.Array, key: jax.Array, degrees: float, fraction: float) -> jax.Array:
  """Turns the image [H, W, C] by up to `degrees` and scales it by up to `fraction`."""
  turn, grow = jax.random.uniform(key, (2,), minval=-1.0)
  return warp(image, jnp.deg2rad(turn * degrees), 1 + grow * fraction)


def random_cutout(image: jax.Array, key: jax.Array, side: int) -> jax.Array:
  """Blackens a square about any pixel of the image [H, W, C]; edges cut it off.

  DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
  """
  height, width, _ = image.shape
  row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
  return cutout(image, row - side // 2, column - side // 2, side)


def cutout(image: jax.Array, row: jax.Array, column: jax.Array, side: int) -> jax.Array:
  """Sets the square of the image [H, W, C] whose upper left corner is (row, column) to 0."""
  y, x = jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])[None, :]
  inside = (row <= y) & (y < row + side) & (column <= x) & (x < column + side)
  return jnp.where(inside[..., None], 0, image)


def warp(image: jax.Array, angle: jax.Array, scale: jax.Array) -> jax.Array:
  """Turns the image [H, W, C] counter-clockwise by `angle` radians and magnifies it by `scale`.

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


def mixup(batch: Batch, keys: jax.Array, alpha: float) -> Batch:
  """Mixes each image of a batch with the next one; `prepare` lists what the batch gets.

  The share of the neighbour is drawn from Beta(alpha, alpha) (Zhang et al. 2018, "mixup: Beyond
  Empirical Risk Minimization", algorithm 1).

  Args:
    batch: has `image` float32 [B, H, W, C], and `label` int32 [B] where there is one.
    keys: of the examples, [B].
    alpha: above 0.
  """

  def share_of_neighbour(key: jax.Array) -> jax.Array:
    share = jax.random.beta(key, alpha, alpha)
    return jnp.minimum(share, 1 - share)

  share = jax.vmap(share_of_neighbour)(keys)
  image, weight = batch['image'], share[:, None, None, None]
  mixed = {'image': (1 - weight) * image + weight * jnp.roll(image, -1, axis=0)}
  if 'label' in batch:
    mixed.update(mixed_label=jnp.roll(batch['label'], -1), mixed_share=share)
  return {**batch, **mixed}


def _example_key(key: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
  return jax.random.fold_in(jax.random.fold_in(key, epoch), index)


def _one_by_one(function: Callable[..., jax.Array]) -> Callable[..., Batch]:
  """Makes an `Augmentation.apply` of a function (image, key, *values) of one image."""

  def apply(batch: Batch, keys: jax.Array, *values: Any) -> Batch:
    image = jax.vmap(lambda image, key: function(image, key, *values))(batch['image'], keys)
    return {**batch, 'image': image}

  return apply


# In the order in which they are applied. A new one takes the next free stream; the streams of the
# others stay, or the same seed would give other images.
AUGMENTATIONS = (
  Augmentation(
    {'crop': Option(int, 0, 'Pixels of black border that a random window is cut from.', low=0)},
    0,
    _one_by_one(random_crop),
  ),
  Augmentation(
    {'flip': Option(bool, False, 'Whether half of the images are mirrored left to right.')},
    1,
    _one_by_one(lambda image, key, flip: random_flip(image, key)),
  ),
  Augmentation(
    {
      'rotate': Option(float, 0.0, 'The most degrees to turn by, either way.', low=0, high=180),
      'scale': Option(
        float, 0.0, 'The largest change of size, 0.1 for factors from 0.9 to 1.1.', low=0, below=1
      ),
    },
    2,
    _one_by_one(random_warp),
  ),
  Augmentation(
    {'cutout': Option(int, 0, 'Side in pixels of a black square at a random place.', low=0)},
    3,
    _one_by_one(random_cutout),
  ),
  Augmentation(
    {'mixup': Option(float, 0.0, 'α of Beta(α, α), which gives the share of a neighbour.', low=0)},
    4,
    mixup,
  ),
)
OPTIONS = {
  name: option for augmentation in AUGMENTATIONS for name, option in augmentation.options.items()
}
# No augmentation: images as they are.
OFF = {name: option.default for name, option in OPTIONS.items()}
