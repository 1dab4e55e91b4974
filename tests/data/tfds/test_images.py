"""Images of every mode are read as Pillow converts them, or refused by the name of their mode."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

import errors
from data import source
from data.tfds import images
from tests.data.tiny_sets import prepare

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)


def colour(mode):
  """An image of the mode with many colours."""
  rgba = PIL.Image.fromarray(PIXELS)
  if mode == 'LAB':
    profiles = (ImageCms.createProfile(space) for space in ('sRGB', 'LAB'))
    return ImageCms.profileToProfile(rgba.convert('RGB'), *profiles, outputMode='LAB')
  if mode in ('RGBA', 'LA'):
    return rgba.convert(mode)
  return rgba.convert('RGB').convert(mode)


def encode(image, file_format, **options):
  file = io.BytesIO()
  image.save(file, file_format, **options)
  return file.getvalue()


def png(depth, colour_type, rows):
  """Writes a PNG by hand: Pillow writes no 16-bit colour."""

  def chunk(kind, data):
    sum_ = zlib.crc32(kind + data)
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', sum_)

  height, width = rows.shape[:2]
  header = struct.pack('>IIBBBBB', width, height, depth, colour_type, 0, 0, 0)
  data = b''.join(b'\0' + row.tobytes() for row in rows)
  parts = chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(data)), chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


# Every mode that these formats can hold, in a file that is read back in that mode.
FILES = [
  *(('PNG', mode) for mode in ('1', 'L', 'P', 'RGB', 'RGBA', 'LA')),
  *(('JPEG', mode) for mode in ('L', 'RGB', 'CMYK')),
  *(('TIFF', mode) for mode in ('1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'PA', 'CMYK', 'YCbCr', 'LAB')),
]


@pytest.mark.parametrize('channels', [1, 3])
def test_pixels_are_those_that_pillow_converts_to(tmp_path, channels):
  import tensorflow_datasets as tfds

  contents = [encode(colour(mode), file_format) for file_format, mode in FILES]
  opened = [PIL.Image.open(io.BytesIO(content)) for content in contents]
  assert [image.mode for image in opened] == [mode for _, mode in FILES]
  features = {'image': tfds.features.Image(shape=(8, 8, channels))}
  prepare(tmp_path, 'modes', features, {'train': [{'image': content} for content in contents]})
  got = source.open_source('modes', 'train', str(tmp_path))
  assert got.spec.features == {'image': ((8, 8, channels), 'uint8')}
  read = got.read(range(len(contents)))['image']
  target = {1: 'L', 3: 'RGB'}[channels]
  for (file_format, mode), image, pixels in zip(FILES, opened, read):
    via = image.convert('RGB') if mode == 'LAB' else image  # Pillow has no LAB to L
    wanted = np.asarray(via.convert(target)).reshape(8, 8, channels)
    np.testing.assert_array_equal(pixels, wanted, f'{file_format} {mode}')
    assert len(np.unique(pixels)) > 1
  np.testing.assert_array_equal(got.load()['image'], read)


def test_a_palette_with_transparency(recwarn):
  image = PIL.Image.fromarray(PIXELS[..., :3]).quantize(8)
  content = encode(image, 'PNG', transparency=bytes(range(8)))
  wanted = np.asarray(image.convert('RGB'))
  np.testing.assert_array_equal(images.decode(content, 3), wanted)
  np.testing.assert_array_equal(images.decode(content, 4)[..., :3], wanted)
  np.testing.assert_array_equal(images.decode(content, 4)[..., 3], np.asarray(image))
  assert not recwarn.list


@pytest.mark.parametrize('mode', ['L', 'RGB', '1'])
def test_a_transparent_colour_is_kept_as_alpha(mode):
  image = PIL.Image.fromarray(PIXELS[..., :3]).convert(mode)
  colour = image.getpixel((0, 0))
  content = encode(image, 'PNG', transparency=colour)
  got = images.decode(content, 4)
  with PIL.Image.open(io.BytesIO(content)) as stored:
    np.testing.assert_array_equal(got, np.asarray(stored.convert('RGBA')))
  assert got[0, 0, 3] == 0 and got[..., 3].max() == 255
  np.testing.assert_array_equal(images.decode(content, 3), got[..., :3])


@pytest.mark.parametrize(
  ('mode', 'channels'), [('1', 1), ('L', 1), ('LA', 2), ('P', 3), ('CMYK', 3), ('RGBA', 4)]
)
def test_without_declared_channels_an_image_has_its_own(mode, channels):
  pixels = images.decode(encode(colour(mode), 'TIFF'), -1)
  assert pixels.shape == (8, 8, channels) and pixels.dtype == np.uint8


def test_an_undeclared_shape_is_that_of_the_first_image(tmp_path):
  import tensorflow_datasets as tfds

  features = {'image': tfds.features.Image(shape=(None, None, 3))}
  examples = [{'image': encode(colour(mode), 'PNG')} for mode in ('P', 'L', 'RGBA')]
  prepare(tmp_path, 'modes', features, {'train': examples})
  got = source.open_source('modes', 'train', str(tmp_path))
  assert got.spec.features == {'image': ((8, 8, 3), 'uint8')}
  assert got.read([0, 1, 2])['image'].shape == (3, 8, 8, 3)


def test_of_16_bits_the_high_byte_is_kept():
  gray = np.array([[0, 255, 256, 511, 512, 32768, 65280, 65535]], np.uint16)
  high = gray[..., None] // 256
  np.testing.assert_array_equal(images.decode(encode(PIL.Image.fromarray(gray), 'PNG'), 1), high)
  for order in ('<u2', '>u2'):
    image = PIL.Image.fromarray(gray.astype(order))
    np.testing.assert_array_equal(images.decode(encode(image, 'TIFF'), 1), high)
  three = np.repeat(high, 3, axis=-1)
  np.testing.assert_array_equal(images.decode(encode(PIL.Image.fromarray(gray), 'PNG'), 3), three)
  rgb = np.repeat(gray[..., None], 3, axis=-1).astype('>u2')
  np.testing.assert_array_equal(images.decode(png(16, 2, rgb), 3), three)  # as Pillow's colour


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (encode(PIL.Image.fromarray(np.ones((8, 8), np.int32)), 'TIFF'), 'has Pillow\'s mode "I"'),
    (encode(PIL.Image.fromarray(np.ones((8, 8), np.float32)), 'TIFF'), 'has Pillow\'s mode "F"'),
    (encode(colour('RGB'), 'PNG')[:60], 'cannot be decoded'),
    (b'no image', r'cannot be decoded \(no format that Pillow knows\)'),
  ],
)
def test_what_has_no_pixels_is_refused(tmp_path, content, message):
  import tensorflow_datasets as tfds

  examples = [{'image': encode(colour('RGB'), 'PNG')}, {'image': content}]
  features = {'image': tfds.features.Image(shape=(8, 8, 3))}
  prepare(tmp_path, 'wrong', features, {'train': examples})
  got = source.open_source('wrong', 'train', str(tmp_path))
  assert got.read([0])['image'].shape == (1, 8, 8, 3)
  with pytest.raises(errors.UserError, match=f'image of example 1 of wrong train {message}.*;'):
    got.read([0, 1])
