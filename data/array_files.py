"""Arrays that NumPy wrote, as images and rows of numbers, for training and for prediction alike."""

import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from data.image_files import fit_image

# What an array of inputs is called.
INPUTS = ('x', 'image', 'images', 'data', 'inputs', 'features')


def read_arrays(file: str | BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the arrays of an .npz file with their names.

  Raises:
    ValueError: it is no .npz file, is damaged, or holds Python objects; says which.
  """
  try:
    opened = np.load(file, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
      raise ValueError('it holds one array without a name, as np.save writes')
    with opened as arrays:
      for name in arrays.files:
        yield name, _array(arrays, name)
  except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
    not_numpy = 'pickled' in str(error)
    raise ValueError('it is no file that NumPy wrote' if not_numpy else str(error)) from error


def as_rows(name: str, array: np.ndarray) -> np.ndarray:
  """Converts an array [N, D] of numbers to float32.

  Raises:
    ValueError: it has another shape, or values that are missing or too large; names the first.
  """
  _check_numbers(name, array)
  if array.ndim != 2:
    raise ValueError(f'"{name}" has the shape {array.shape}; rows of numbers are (N, columns)')
  with np.errstate(over='ignore'):
    narrow = array.astype(np.float32)
  bad = np.argwhere(~np.isfinite(narrow))
  if len(bad):
    row, column = bad[0]
    raise ValueError(
      f'row {row}, column {column} of "{name}" is {array[row, column]}, the first of '
      f'{len(bad):,} values that are missing or too large; replace them'
    )
  return narrow


def as_images(
  name: str, array: np.ndarray, size: Sequence[int], channels: int, resize: str
) -> np.ndarray:
  """Converts an array [N, H, W] or [N, H, W, C] of whole numbers from 0 to 255 to images.

  Args:
    name: of the array, for messages.
    array: the images.
    size, channels, resize: see `data.image_files.fit_image`; size () and channels 0 keep theirs.

  Returns:
    uint8 [N, H, W, C].

  Raises:
    ValueError: it has another shape or other values; says how to convert it.
  """
  import PIL.Image

  _check_numbers(name, array)
  if array.ndim not in (3, 4):
    raise ValueError(
      f'"{name}" has the shape {array.shape}; images are (N, height, width) or (N, height, width, '
      'channels)'
    )
  whole = array.dtype.kind in 'uib' and array.min() >= 0 and array.max() <= 255
  if not whole:
    raise ValueError(
      f'"{name}" is {array.dtype} from {array.min()} to {array.max()}, and images are whole '
      "numbers from 0 to 255; convert it, e.g. (255 * x).round().astype('uint8') of numbers from 0 "
      'to 1'
    )
  pixels = (array if array.ndim == 4 else array[..., None]).astype(np.uint8)
  if array.dtype.kind == 'b':
    pixels *= 255
  has = pixels.shape[-1]
  if has not in (1, 3, 4):
    first = ', e.g. by np.moveaxis(x, 1, -1)' if pixels.shape[1] in (1, 3, 4) else ''
    raise ValueError(
      f'"{name}" has the shape {array.shape}, whose last axis must be 1, 3 or 4 channels; bring '
      f'them there{first}'
    )
  size = tuple(size) or pixels.shape[1:3]
  if (*size, channels or has) == pixels.shape[1:]:
    return pixels
  pictures = (PIL.Image.fromarray(row[..., 0] if has == 1 else row) for row in pixels)
  return np.stack([fit_image(each, size, channels or has, resize) for each in pictures])


def _array(arrays: Any, name: str) -> np.ndarray:
  try:
    return np.asarray(arrays[name])
  except ValueError as error:
    if 'allow_pickle' not in str(error):
      raise
    raise ValueError(
      f'the array "{name}" holds Python objects, which may run code when they are loaded'
    ) from error


def _check_numbers(name: str, array: np.ndarray) -> None:
  if array.dtype.kind not in 'uifb':
    raise ValueError(f'"{name}" holds {array.dtype}; write it as numbers')
  if not array.size:
    raise ValueError(f'"{name}" has the shape {array.shape} and holds nothing; add some examples')
