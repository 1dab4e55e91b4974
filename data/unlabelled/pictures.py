"""Pictures in files, folders and arrays, prepared as the run's own."""

import contextlib
from collections.abc import Sequence

import numpy as np

import files
from data.array_files import as_images
from data.examples import Examples, Indices
from data.image_files import RESIZES, fit_image, read_image
from data.spec import Spec
from data.unlabelled import arrays
from data.unlabelled.base import (
  PIPE,
  InputRequest,
  Inputs,
  Preparation,
  decoded,
  files_in,
  read_file,
  refuse_others,
  some,
)
from errors import UserError, choose

# Bytes of decoded pictures that are kept from the check on; the others are decoded a second time.
_KEPT = 2**28


def open_pictures(asked: InputRequest, reading: Preparation) -> Inputs:
  """Decodes all pictures once, so that nothing is predicted where one of them is refused.

  Raises:
    UserError: a picture cannot be read, or has another size and is not to be resized; there is
      none; or another flag has no effect.
  """
  refuse_others(asked, reading, 'pictures', ('--resize',))
  resize = _resize(asked, reading)
  if arrays.are_arrays(asked):
    return _in_arrays(asked, reading, resize)
  places, others = _find(asked)
  if not places:
    raise UserError(
      f'--input={",".join(asked.places)} has no pictures ({others:,} other files); name some'
    )
  pictures = Pictures(places, reading.spec, resize)
  _check(pictures, asked)
  skipped = f'left out of the folders: files that are no pictures ({others:,})'
  return Inputs(pictures, places, lambda number: number, remarks=(skipped,) if others else ())


def _in_arrays(asked: InputRequest, reading: Preparation, resize: str) -> Inputs:
  """Pictures in .npz files, prepared as those of npz:PATH are."""
  shape, _ = reading.spec.features['image']
  parts, names = [], []
  for place in asked.places:
    name, array = arrays.read_inputs(place)
    try:
      pixels = as_images(name, array, shape[:2] if resize else (), shape[-1], resize)
    except ValueError as error:
      raise UserError(f'--input={place}: {error}') from error
    if pixels.shape[1:] != tuple(shape):
      raise _other_size(len(pixels), f'of {place}', f'"{name}" has {_size(pixels[0])}', shape)
    parts.append(pixels)
    names += arrays.names_of(place, pixels)
  held = arrays.Arrays('image', np.concatenate(parts), reading.spec)
  return Inputs(held, names, lambda number: number)


class Pictures(Examples):
  """Pictures with the feature `image`, decoded as they are read.

  Args:
    places: of the files.
    spec: of the data that the run was trained on, whose size and channels they get.
    resize: see `data.image_files.fit_image`; '' for pictures that have the size.
  """

  def __init__(self, places: list[str], spec: Spec, resize: str):
    shape, dtype = spec.features['image']
    self.shape = tuple(shape)
    self.stamp = ''
    features = {'image': (self.shape, dtype)}
    self.spec = spec._replace(name='pictures', split='', n=len(places), features=features)
    self.places = places
    self._resize = resize
    self._kept: dict[int, np.ndarray] = {}
    self._room = _KEPT

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return {'image': np.stack([self._at(int(index)) for index in indices])}

  def decode(self, number: int) -> np.ndarray:
    """Decodes a picture: uint8 [H, W, C] of the run's size where pictures are resized.

    Raises:
      ValueError: it cannot be decoded.
    """
    picture = read_image(read_file(self.places[number]))
    size = self.shape[:2] if self._resize else ()
    pixels = fit_image(picture, size, self.shape[-1], self._resize)
    if pixels.shape == self.shape and pixels.nbytes <= self._room:
      self._room -= pixels.nbytes
      self._kept[number] = pixels
    return pixels

  def _at(self, number: int) -> np.ndarray:
    if number in self._kept:
      return self._kept[number]
    with contextlib.suppress(ValueError):
      pixels = self.decode(number)
      if pixels.shape == self.shape:
        return pixels
    raise UserError(f'{self.places[number]} has changed since it was checked; run it again')


def _check(pictures: Pictures, asked: InputRequest) -> None:
  """Decodes all pictures; raises UserError naming those that are refused."""
  unreadable, of_other_size = [], []
  with asked.counting('read', len(pictures)) as progress:
    for number, place in enumerate(pictures.places):
      try:
        found = pictures.decode(number).shape
        if found != pictures.shape:
          of_other_size.append(f'{place} is {found[0]} × {found[1]}')
      except (UserError, ValueError) as error:
        unreadable.append(f'{place} {error}' if isinstance(error, ValueError) else str(error))
      progress(number + 1)
  number = f'of {len(pictures):,} pictures'
  if unreadable:
    raise UserError(
      f'{len(unreadable):,} {number} cannot be read: {some(unreadable)}; leave them out, or mend '
      'them'
    )
  if of_other_size:
    raise _other_size(len(of_other_size), number, some(of_other_size), pictures.shape)


def _other_size(number: int, of: str, found: str, shape: Sequence[int]) -> UserError:
  return UserError(
    f'{number:,} {of} have another size than the {shape[0]} × {shape[1]} pixels (height × width) '
    f'that the run reads: {found}; resize them with --resize=center, --resize=stretch or '
    '--resize=pad'
  )


def _size(pixels: np.ndarray) -> str:
  return f'{pixels.shape[0]} × {pixels.shape[1]}'


def _resize(asked: InputRequest, reading: Preparation) -> str:
  """How pictures are resized: as the run resized its own, else as asked for."""
  if asked.resize:
    choose(dict.fromkeys(RESIZES), asked.resize, '--resize')
  # A section without a size took the pictures as they were.
  own = reading.image.get('resize', '') if reading.image.get('size') else ''
  if own and asked.resize and own != asked.resize:
    raise UserError(
      f'--resize={asked.resize} is not how {reading.workdir} was trained, with '
      f'config.data.image.resize={own}; leave it out'
    )
  return own or asked.resize


def _find(asked: InputRequest) -> tuple[list[str], int]:
  """The files of all places, and how many files in folders are no pictures."""
  import PIL.Image

  PIL.Image.init()
  found: list[str] = []
  others = 0
  for place in asked.places:
    if place == PIPE:
      found += _piped(asked)
    elif files.path(place).is_dir():
      inside = [*files_in(files.path(place))]
      pictures = [str(path) for path in inside if _can_be_picture(path)]
      found += pictures
      others += len(inside) - len(pictures)
    else:
      found.append(place)
  return found, others


def _can_be_picture(path: files.Path) -> bool:
  import PIL.Image

  # Some formats of the table of endings can be written only.
  return PIL.Image.EXTENSION.get(path.suffix.lower()) in PIL.Image.OPEN


def _piped(asked: InputRequest) -> list[str]:
  """The names of files on standard input, one a line."""
  content = asked.stdin()
  if b'\0' in content:
    raise UserError('--input=- reads the names of pictures, one a line, and not their bytes')
  return [line.strip() for line in decoded(content, PIPE).splitlines() if line.strip()]
