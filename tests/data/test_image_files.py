"""Images brought to one size: against Pillow by hand, and what viewers show."""

import io

import numpy as np
import PIL.Image
import pytest

from data.image_files import fit_image, read_image

LANCZOS = PIL.Image.Resampling.LANCZOS


def gradient(width, height):
  """A colour image in which every pixel differs from its neighbours."""
  x, y = np.meshgrid(np.arange(width), np.arange(height))
  return PIL.Image.fromarray(np.stack([5 * x, 7 * y, 3 * (x + y)], -1).astype(np.uint8))


def encoded(image, format='PNG', **options):
  file = io.BytesIO()
  image.save(file, format=format, **options)
  return file.getvalue()


def test_center_scales_the_shorter_side_and_cuts_the_longer_one_on_both_ends():
  image = gradient(40, 20)
  expected = image.resize((10, 10), LANCZOS, box=(10, 0, 30, 20))
  np.testing.assert_array_equal(fit_image(image, (10, 10), 3, 'center'), np.asarray(expected))


def test_stretch_scales_both_sides():
  image = gradient(40, 20)
  pixels = fit_image(image, (8, 10), 3, 'stretch')
  np.testing.assert_array_equal(pixels, np.asarray(image.resize((10, 8), LANCZOS)))


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_pad_fills_the_rest_with_zeros(channels):
  pixels = fit_image(PIL.Image.new('RGB', (40, 20), 'white'), (10, 10), channels, 'pad')
  assert pixels.shape == (10, 10, channels)
  assert (pixels[2:7] == 255).all() and not pixels[:2].any() and not pixels[8:].any()


@pytest.mark.parametrize('resize', ['center', 'stretch', 'pad'])
def test_an_image_of_the_size_is_not_filtered(resize):
  image = gradient(9, 7)
  np.testing.assert_array_equal(fit_image(image, (7, 9), 0, resize), np.asarray(image))
  np.testing.assert_array_equal(fit_image(image, (), 3, resize), np.asarray(image))


def test_the_channels_are_those_of_the_image_or_of_the_option():
  assert fit_image(gradient(4, 4), (), 0, 'center').shape == (4, 4, 3)
  assert fit_image(gradient(4, 4).convert('L'), (), 0, 'center').shape == (4, 4, 1)
  assert fit_image(gradient(4, 4).convert('P'), (2, 2), 4, 'center').shape == (2, 2, 4)
  deep = PIL.Image.fromarray(np.full((4, 4), 0x8034, np.uint16))
  assert (fit_image(deep, (2, 2), 1, 'stretch') == 0x80).all()


def test_colour_under_transparent_pixels_does_not_bleed_when_alpha_is_kept():
  image = PIL.Image.new('RGBA', (8, 8), (0, 255, 0, 0))
  image.paste((255, 0, 0, 255), (0, 0, 4, 8))
  pixels = fit_image(image, (3, 3), 4, 'center')
  assert not pixels[..., 1][pixels[..., 3] > 0].any()


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
def test_a_photo_is_turned_as_its_exif_data_say():
  image, exif = PIL.Image.new('L', (6, 4)), PIL.Image.Exif()
  image.putpixel((0, 0), 255)
  exif[0x0112] = 6  # to be turned by 90 degrees clockwise
  turned = np.asarray(read_image(encoded(image, exif=exif)))
  assert turned.shape == (6, 4) and turned[0, 3] == 255
  damaged = encoded(image, 'JPEG', exif=b'Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12')
  assert read_image(damaged).size == (6, 4)


def test_the_first_frame_of_an_animation_is_read():
  frames = [PIL.Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
  content = encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])
  assert (fit_image(read_image(content), (), 3, 'center') == [255, 0, 0]).all()


@pytest.mark.parametrize(
  'content', [b'', b'GIF89a', encoded(gradient(64, 64), 'BMP')[:200], b'text']
)
def test_a_damaged_file_is_refused(content):
  with pytest.raises(ValueError, match='cannot be decoded'):
    read_image(content)
