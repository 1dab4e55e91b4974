"""Augmentation against cases worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import errors
from data import transforms

OFF = {'crop': 0, 'flip': False, 'rotate': 0.0, 'scale': 0.0, 'cutout': 0, 'mixup': 0.0}
KEY = jax.random.key(3)
IMAGE = jnp.arange(1.0, 13.0).reshape(3, 4, 1)


def batch_of(indices, epoch=0):
  images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8)
  index = np.array(indices, np.int32)
  epochs = np.full(len(index), epoch, np.uint32)
  return {'image': jnp.asarray(images[index]), 'index': index, 'epoch': epochs}


def test_nothing_asked_only_turns_bytes_into_floats():
  batch = {'image': jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1), 'label': jnp.array([4])}
  prepared = transforms.prepare(batch, KEY, OFF)
  assert prepared['image'].dtype == jnp.float32
  np.testing.assert_allclose(prepared['image'].ravel(), [0, 0.2, 1.0], rtol=1e-6)
  assert prepared['label'] is batch['label']


def test_nothing_asked_costs_nothing():
  lines = str(jax.make_jaxpr(lambda b: transforms.prepare(b, KEY, OFF))(batch_of([1, 2])))
  assert 'random' not in lines and 'threefry' not in lines and 'gather' not in lines


@pytest.mark.parametrize('down', [0, 1, 2])
@pytest.mark.parametrize('right', [0, 1, 2])
def test_crop_shifts(down, right):
  expected = np.zeros((3, 4))
  for y in range(3):
    for x in range(4):
      if 0 <= y + down - 1 < 3 and 0 <= x + right - 1 < 4:
        expected[y, x] = IMAGE[y + down - 1, x + right - 1, 0]
  np.testing.assert_array_equal(transforms.crop(IMAGE, down, right, 1)[..., 0], expected)


def test_random_crop_reaches_every_window():
  keys = jax.random.split(KEY, 300)
  got = np.asarray(jax.vmap(lambda key: transforms.random_crop(IMAGE, key, 1))(keys))
  padded = np.pad(np.asarray(IMAGE), ((1, 1), (1, 1), (0, 0)))
  wanted = {padded[y : y + 3, x : x + 4].tobytes() for y in range(3) for x in range(3)}
  assert {image.tobytes() for image in got} == wanted


def test_flip_mirrors_half_of_the_images_left_to_right():
  got = jax.vmap(lambda key: transforms.random_flip(IMAGE, key))(jax.random.split(KEY, 400))
  mirrored = (got == IMAGE[:, ::-1]).all((1, 2, 3))
  same = (got == IMAGE).all((1, 2, 3))
  assert (mirrored | same).all() and 150 < mirrored.sum() < 250


@pytest.mark.parametrize('turns', [0, 1, 2, 3])
def test_warp_by_quarter_turns(turns):
  square = jax.random.uniform(KEY, (5, 5, 2))
  got = transforms.warp(square, jnp.float32(turns * np.pi / 2), jnp.float32(1.0))
  np.testing.assert_allclose(got, jnp.rot90(square, turns), atol=2e-5)


def test_warp_twice_as_big_about_the_centre():
  line = jnp.array([0.0, 8.0, 4.0, 2.0, 0.0])[None, :, None]
  got = transforms.warp(line, jnp.float32(0.0), jnp.float32(2.0))
  np.testing.assert_allclose(got[0, :, 0], [8.0, 6.0, 4.0, 3.0, 2.0], atol=1e-5)


def test_warp_half_as_big_is_black_outside():
  line = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])[None, :, None]
  got = transforms.warp(line, jnp.float32(0.0), jnp.float32(0.5))
  np.testing.assert_allclose(got[0, :, 0], [0, 1.0, 3.0, 5.0, 0], atol=1e-5)


def test_random_warp_stays_in_its_bounds():
  """The spot at a known place tells angle and scale of each draw."""
  image = jnp.zeros((65, 65, 1)).at[32, 52].set(1.0)
  warp = jax.jit(jax.vmap(lambda key: transforms.random_warp(image, key, 30.0, 0.2)))
  got = np.asarray(warp(jax.random.split(KEY, 200)))
  grid = np.arange(65.0) - 32
  mass = got[..., 0].sum((1, 2))
  y = (got[..., 0] * grid[:, None]).sum((1, 2)) / mass
  x = (got[..., 0] * grid[None]).sum((1, 2)) / mass
  angle, scale = np.rad2deg(np.arctan2(-y, x)), np.hypot(y, x) / 20
  assert angle.min() > -31 and angle.max() < 31 and scale.min() > 0.77 and scale.max() < 1.23
  assert angle.min() < -24 and angle.max() > 24 and scale.min() < 0.85 and scale.max() > 1.15


ALL = {**OFF, 'crop': 2, 'flip': True, 'rotate': 20.0, 'scale': 0.2, 'cutout': 3}


@pytest.mark.parametrize('option', ['crop', 'flip', 'rotate', 'scale'])
def test_every_option_does_something(option):
  batch = batch_of(range(8))
  plain = transforms.prepare(batch, KEY, OFF)['image']
  changed = transforms.prepare(batch, KEY, {**OFF, option: ALL[option]})['image']
  assert changed.shape == plain.shape and (changed != plain).any((1, 2, 3)).sum() >= 2


@pytest.mark.slow
def test_each_augmentation_has_its_own_stream_of_the_examples_key():
  """Written out, so that the same seed gives the same images whatever is added to the table."""
  batch = batch_of([7], epoch=2)
  key = jax.random.fold_in(jax.random.fold_in(KEY, 2), 7)
  crop_key, flip_key, warp_key = jax.random.split(key, 3)
  image = jnp.asarray(batch['image'][0], jnp.float32) / 255
  image = transforms.random_crop(image, crop_key, 2)
  image = transforms.random_flip(image, flip_key)
  image = transforms.random_warp(image, warp_key, 20.0, 0.2)
  image = transforms.random_cutout(image, jax.random.fold_in(key, 3), 3)
  np.testing.assert_allclose(transforms.prepare(batch, KEY, ALL)['image'][0], image, atol=1e-6)
  two = batch_of([7, 8], epoch=2)
  share = jax.random.beta(jax.random.fold_in(key, 4), 0.4, 0.4)
  got = transforms.prepare({**two, 'label': jnp.arange(2)}, KEY, {**OFF, 'mixup': 0.4})
  np.testing.assert_allclose(got['mixed_share'][0], jnp.minimum(share, 1 - share), rtol=1e-6)
  streams = [augmentation.stream for augmentation in transforms.AUGMENTATIONS]
  assert len(set(streams)) == len(streams)


@pytest.mark.parametrize('augment', [ALL, {**OFF, 'crop': 2, 'flip': True}])
def test_an_example_looks_the_same_in_any_batch(augment):
  prepare = jax.jit(lambda batch, key: transforms.prepare(batch, key, augment)['image'])
  together, alone = prepare(batch_of([5, 17, 40, 3]), KEY), prepare(batch_of([40]), KEY)
  # XLA's vectorised sine and cosine differ in the last bit with the number of rows.
  np.testing.assert_allclose(together[2], alone[0], atol=1e-5 if augment['rotate'] else 0)
  assert abs(prepare(batch_of([40], epoch=1), KEY) - alone).max() > 0.1
  assert abs(prepare(batch_of([40]), jax.random.key(4)) - alone).max() > 0.1


@pytest.mark.parametrize(
  ('augment', 'text'),
  [
    ({**OFF, 'rotation': 1.0}, r'rotation is no option of .*\(did you mean "rotate"\?\)'),
    ({'crop': 0, 'flip': False, 'rotate': 0.0}, 'scale is missing'),
    ({**OFF, 'scale': 1.0}, 'scale=1.0 must be at least 0 and below 1'),
    ({**OFF, 'crop': -1}, 'crop=-1 must be at least 0'),
    ({**OFF, 'crop': 1.5}, 'crop=1.5 must be a whole number'),
  ],
)
def test_mistakes_are_named(augment, text):
  with pytest.raises(errors.UserError, match=text):
    transforms.prepare(batch_of([1]), KEY, augment)


@pytest.mark.parametrize(('row', 'column'), [(0, 0), (-1, 2), (2, 3)])
def test_cutout_blackens_a_square_and_edges_cut_it_off(row, column):
  expected = np.array(IMAGE[..., 0])
  for y in range(3):
    for x in range(4):
      if row <= y < row + 2 and column <= x < column + 2:
        expected[y, x] = 0
  np.testing.assert_array_equal(transforms.cutout(IMAGE, row, column, 2)[..., 0], expected)


def test_random_cutout_is_centred_on_any_pixel():
  keys = jax.random.split(KEY, 400)
  got = np.asarray(jax.vmap(lambda key: transforms.random_cutout(IMAGE, key, 3))(keys))[..., 0]
  expected = {
    np.asarray(transforms.cutout(IMAGE, y - 1, x - 1, 3)).tobytes()
    for y in range(3)
    for x in range(4)
  }
  assert {image[..., None].tobytes() for image in got} == expected


def test_mixup_mixes_an_image_with_the_next_and_says_so():
  batch = {**batch_of(range(50)), 'label': jnp.arange(50, dtype=jnp.int32)}
  plain = transforms.prepare(batch, KEY, OFF)['image']
  got = jax.jit(lambda b: transforms.prepare(b, KEY, {**OFF, 'mixup': 0.4}))(batch)
  share = got['mixed_share']
  assert 0 <= float(share.min()) and 0.05 < float(share.mean()) and float(share.max()) <= 0.5
  np.testing.assert_array_equal(got['label'], np.arange(50))
  np.testing.assert_array_equal(got['mixed_label'], (np.arange(50) + 1) % 50)
  weight = share[:, None, None, None]
  np.testing.assert_allclose(
    got['image'], (1 - weight) * plain + weight * np.roll(plain, -1, axis=0), atol=1e-6
  )
  # Beta(0.4, 0.4) folded at one half has this mean.
  draws = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
  wanted = np.minimum(draws, 1 - draws)
  assert abs(float(share.mean()) - wanted.mean()) < 4 * wanted.std() / 50**0.5


def test_augmentation_of_a_table_is_refused():
  table = {'inputs': jnp.zeros((2, 3))}
  assert transforms.prepare(table, KEY, OFF).keys() == {'inputs'}
  with pytest.raises(errors.UserError, match='flip is for images'):
    transforms.prepare(table, KEY, {**OFF, 'flip': True})
