"""Decodes image files of every Pillow mode to 8-bit gray or colour."""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import PIL.Image

# The mode to convert to, by the number of channels.
_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}
# The number of channels that an image of a mode has itself; 3 for modes that are not listed.
_CHANNELS = {'1': 1, 'L': 1, 'LA': 2, 'RGBA': 4, 'RGBa': 4, 'PA': 4}
_GRAY16 = ('I;16', 'I;16B', 'I;16L', 'I;16N')


def decode(content: bytes, channels: int) -> np.ndarray:
  """Decodes an image file to the pixels that Pillow's `convert` gives; see `convert`.

  Args:
    content: a PNG, JPEG, TIFF or any other file that Pillow reads; only its first frame is read.
    channels: 1 for gray, 3 for RGB, 2 and 4 for these with alpha; -1 for what the image has.

  Returns:
    uint8 [H, W, C].

  Raises:
    ValueError: the file is damaged, or its pixels have no 8-bit equivalent; says which.
  """
  pixels = np.asarray(convert(read(content), channels))
  return pixels if pixels.ndim == 3 else pixels[..., None]


def read(content: bytes) -> 'PIL.Image.Image':
  """Reads the first frame of an image file; ValueError, which says why, where it is damaged."""
  import PIL.Image

  try:
    with PIL.Image.open(io.BytesIO(content)) as image:
      image.load()
      return image
  except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
    # The name that Pillow gives the file is the address of our buffer.
    unknown = isinstance(error, PIL.UnidentifiedImageError)
    reason = 'no format that Pillow knows' if unknown else error
    raise ValueError(f'cannot be decoded ({reason})') from error


def channels_of(mode: str) -> int:
  """The number of channels, 1 to 4, that an image of one of Pillow's modes has itself."""
  return 1 if mode in _GRAY16 else _CHANNELS.get(mode, 3)


def convert(image: 'PIL.Image.Image', channels: int) -> 'PIL.Image.Image':
  """Converts an image of any mode to 8-bit gray or colour, as Pillow's `convert` does.

  16-bit gray is an exception: Pillow clips it to 255, and here its high byte is kept, as Pillow
  keeps that of 16-bit colour.

  Args:
    image: the image.
    channels: as for `decode`.

  Raises:
    ValueError: its pixels have no 8-bit equivalent; says why.
  """
  import PIL.Image

  mode = image.mode
  if mode in _GRAY16:
    image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  elif mode in ('I', 'F'):
    raise ValueError(
      f'has Pillow\'s mode "{mode}", 32 bits a pixel, whose range of values the file does not say'
    )
  target = _MODES[_CHANNELS.get(image.mode, 3) if channels < 0 else channels]
  if image.mode == target:
    return image
  if target in ('L', 'RGB'):
    image.info.pop('transparency', None)  # it changes no pixel here, and Pillow warns of some
  try:
    # Pillow converts LAB to RGB only.
    return (image.convert('RGB') if mode == 'LAB' else image).convert(target)
  except ValueError as error:
    raise ValueError(
      f'has Pillow\'s mode "{mode}", which cannot be converted to "{target}"'
    ) from error
