"""Image files brought to one size and one number of channels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.tfds import images

if TYPE_CHECKING:
  import PIL.Image

CENTER, STRETCH, PAD = 'center', 'stretch', 'pad'
# How an image of another shape is brought to a size.
RESIZES = (CENTER, STRETCH, PAD)


def read_image(content: bytes) -> 'PIL.Image.Image':
  """Decodes an image file as a viewer shows it: its first frame, turned as its EXIF data say.

  Raises:
    ValueError: the file is damaged, or no image; says which.
  """
  import PIL.ImageOps

  image = images.read(content)
  try:
    return PIL.ImageOps.exif_transpose(image)
  except Exception:  # Pillow raises whatever damaged EXIF data lead to; the pixels are whole
    return image


def fit_image(
  picture: 'PIL.Image.Image', size: Sequence[int], channels: int, resize: str
) -> np.ndarray:
  """Converts an image of any size and Pillow mode to 8-bit pixels of one size.

  Args:
    picture: the image.
    size: (height, width) in pixels; () for the image's own.
    channels: 1 for gray, 3 for RGB, 4 for RGB with alpha; 0 for what the image has.
    resize: `center` scales the image until it covers the size and cuts off what stands over on two
      opposite sides; `pad` scales it until it fits and fills the rest with 0 (black, and with alpha
      transparent); `stretch` scales both sides to the size. All of them by Pillow's Lanczos filter.

  Returns:
    uint8 [H, W, C].

  Raises:
    ValueError: its pixels have no 8-bit equivalent; says why.
  """
  import PIL.Image
  import PIL.ImageOps

  image = images.convert(picture, channels or -1)
  target = (size[1], size[0]) if size else image.size  # Pillow's order
  lanczos = PIL.Image.Resampling.LANCZOS
  if image.size != target:
    if resize == CENTER:
      image = PIL.ImageOps.fit(image, target, lanczos)
    elif resize == PAD:
      image = PIL.ImageOps.pad(image, target, lanczos, color=(0,) * len(image.getbands()))
    else:
      image = image.resize(target, lanczos)
  pixels = np.asarray(image)
  return pixels if pixels.ndim == 3 else pixels[..., None]
