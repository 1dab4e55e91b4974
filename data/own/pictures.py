"""Pictures in folders: folder:PATH."""

import collections
import hashlib
import io
import os
from collections.abc import Mapping
from typing import Any

from data.image_files import fit_image, read_image
from data.own import listing
from data.own.contents import TRAIN, Contents, Entry, deal
from data.own.listing import File, Listing
from data.own.options import Own
from data.own.progress import Progress, some
from data.tfds import images
from errors import UserError

_ORIENTATION = 0x0112  # the tag of EXIF
_TURNED = (5, 6, 7, 8)  # its values of pictures whose sides are exchanged


def read(found: Listing, title: str, own: Own) -> Contents:
  """Reads the headers of all pictures of a folder, and hashes their content.

  Args:
    found: the files below the folder.
    title: the data set's name.
    own: with the size and the channels to bring them to.

  Raises:
    UserError: there is no picture, or they differ in size or channels and the options do not say
      what is to be done; see also `listing.place`.
  """
  if found.is_file:
    raise UserError(
      f'config.data.name={title} is a file, and folder: reads the pictures in a folder; name the '
      'folder, and unpack an archive first'
    )
  files = [file for file in found.files if _may_be_picture(file)]
  others = [file.name for file in found.files if not _may_be_picture(file)]
  if not files:
    raise UserError(
      f'config.data.name={title} has no pictures'
      f'{f", only {some(others)}" if others else ""}; name a folder of image files, such as PNG'
    )
  entries: dict[str | None, list[Entry]] = collections.defaultdict(list)
  left_out: dict[str, str] = {}
  sizes, channels = collections.Counter(), collections.Counter()
  progress = Progress(f'reading {title}', len(files), 'pictures')
  for each in listing.place(files, title, 'pictures'):
    try:
      digest, size, number = _header(each.file)
    except ValueError as error:
      left_out[each.file.name] = str(error)
    else:
      sizes[size] += 1
      channels[number] += 1
      entries[each.split].append(Entry(digest, each.label, each.file, each.file.name))
    progress.add()
  if not entries:
    name, reason = next(iter(left_out.items()))
    raise UserError(
      f'none of the {len(files):,} pictures of {title} can be read: {name} {reason}; replace them'
    )
  shape = _shape(own, sizes, channels, title)
  splits = {split: each for split, each in entries.items() if split}
  if None in entries:
    splits = deal(entries[None])
  elif {*splits} == {TRAIN}:
    splits = deal(splits[TRAIN])
  labels = {entry.label for each in splits.values() for entry in each if entry.label is not None}
  return Contents(
    splits,
    listing.sorted_classes(labels),
    lambda: _features(shape),
    lambda entry: {'image': _pixels(entry, own, shape)},
    'pictures',
    tuple(_notes(others, found, files, bool(labels), title)),
    left_out,
  )


def _may_be_picture(file: File) -> bool:
  import PIL.Image

  PIL.Image.init()
  suffix = os.path.splitext(file.name)[1].lower()
  return not suffix or PIL.Image.EXTENSION.get(suffix) in PIL.Image.OPEN


def _header(file: File) -> tuple[bytes, tuple[int, int], int]:
  """Returns the hash of a picture's content, its (height, width), and its number of channels."""
  import PIL.Image

  content = listing.read(file)
  try:
    with PIL.Image.open(io.BytesIO(content)) as image:
      width, height = image.size
      exif = 'exif' in image.info or image.format != 'PNG'
      turned = exif and image.getexif().get(_ORIENTATION) in _TURNED
      size = (width, height) if turned else (height, width)
      return hashlib.sha256(content).digest(), size, images.channels_of(image.mode)
  except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
    unknown = isinstance(error, PIL.UnidentifiedImageError)
    raise ValueError(
      f'cannot be decoded ({"no format that Pillow knows" if unknown else error})'
    ) from error


def _shape(
  own: Own,
  sizes: Mapping[tuple[int, int], int],
  channels: Mapping[int, int],
  title: str,
) -> tuple[int, int, int]:
  """The (height, width, channels) that all pictures are brought to."""
  size = own.image.height_width
  if not size:
    if len(sizes) > 1:
      common = sorted(sizes.items(), key=lambda item: -item[1])
      shown = [f'{height} × {width} ({n:,})' for (height, width), n in common]
      raise UserError(
        f'the pictures of {title} differ in size (height × width: {some(shown)}); bring them to '
        'one with --config.data.image.size=32 or =HEIGHT,WIDTH'
      )
    size = next(iter(sizes))
  number = own.image.channels
  if not number:
    if len(channels) > 1 or 2 in channels:
      shown = [f'{_CHANNELS[each]} ({n:,})' for each, n in sorted(channels.items())]
      raise UserError(
        f'the pictures of {title} have different channels: {", ".join(shown)}; choose with '
        '--config.data.image.channels=3 (colour) or 1 (gray)'
      )
    number = next(iter(channels))
  return (*size, number)


_CHANNELS = {1: 'gray', 2: 'gray with alpha', 3: 'colour', 4: 'colour with alpha'}


def _features(shape: tuple[int, int, int]) -> dict[str, Any]:
  import numpy as np
  import tensorflow_datasets as tfds

  # Pixels are read several times as fast as PNGs, and record files are compressed.
  return {
    'image': tfds.features.Tensor(
      shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
    )
  }


def _pixels(entry: Entry, own: Own, shape: tuple[int, int, int]) -> Any:
  content = listing.read(entry.source)
  if hashlib.sha256(content).digest() != entry.digest:
    raise UserError(f'{entry.source.path} was changed while it was read; start again')
  image = read_image(content)
  pixels = fit_image(image, own.image.height_width, shape[-1], own.image.resize)
  if pixels.shape != shape:
    raise ValueError(f'has {pixels.shape[0]} × {pixels.shape[1]} pixels, unlike its header')
  return pixels


def _notes(
  others: list[str], found: Listing, files: list[File], classes: bool, title: str
) -> list[str]:
  notes = []
  if others:
    notes.append(f'files of {title} that are no pictures: {len(others):,} ({some(others)})')
  if classes:
    full = {'/'.join(file.name.split('/')[:depth]) for file in files for depth in (1, 2)}
    depth = 2 if any(folder.lower() in listing.SPLITS for folder in full) else 1
    empty = [name for name in found.folders if name.count('/') < depth and name not in full]
    if empty:
      notes.append(f'folders of {title} without pictures are no classes: {some(empty)}')
  return notes
