"""Arrays that NumPy wrote: npz:PATH."""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from data.image_files import fit_image
from data.own import listing
from data.own.contents import TRAIN, Contents, Entry, deal
from data.own.listing import SPLITS, Listing
from data.own.options import Own
from data.own.progress import Progress, some
from errors import UserError

_INPUTS = ('x', 'image', 'images', 'data', 'inputs', 'features')
_TARGETS = ('y', 'label', 'labels', 'target', 'targets', 'class', 'classes')
_MOST_CLASSES = 100  # more distinct whole numbers are no classes


def read(found: Listing, title: str, own: Own) -> Contents:
  """Reads the arrays of an .npz file: inputs and labels or targets, of one or several splits.

  Args:
    found: the file.
    title: the data set's name.
    own: with the size and the channels to bring images to.

  Raises:
    UserError: it is no .npz file, its arrays have other names, or they do not fit together.
  """
  if not found.is_file:
    raise UserError(f'config.data.name={title} is a folder; name an .npz file')
  arrays, digest = _load(found.root, title)
  pairs, others = _pairs(arrays, title)
  labelled = {split: 'y' in pair for split, pair in pairs.items()}
  if len({*labelled.values()}) > 1:
    lacking = ', '.join(split or TRAIN for split, has in labelled.items() if not has)
    raise UserError(f'{title} has labels for some splits, and none for {lacking}; add them')
  inputs = {split: _inputs(*pair['x'], title, own) for split, pair in pairs.items()}
  kinds = {(array.shape[1:], array.dtype.str) for array in inputs.values()}
  if len(kinds) > 1:
    raise UserError(
      f'the splits of {title} differ: {" and ".join(str(shape) for shape, _ in sorted(kinds))} an '
      'example; bring them to one'
    )
  targets, classes = _targets(pairs, inputs, title)
  entries = {
    split: _entries(split, inputs[split], targets.get(split), classes, title) for split in inputs
  }
  splits = {split: each for split, each in entries.items() if split}
  if None in entries:
    splits = deal(entries[None])
  elif {*splits} == {TRAIN}:
    splits = deal(splits[TRAIN])
  if classes:
    rows = {(split, entry.label) for split, each in splits.items() for entry in each}
    if None not in entries and len(entries) > 1:
      listing.check_classes(rows, title, 'examples')
  is_image = next(iter(inputs.values())).ndim == 4
  shape = next(iter(inputs.values())).shape[1:]
  numbers = any(values.dtype.kind == 'f' for values in targets.values()) or _is_few(targets)

  def example(entry: Entry) -> dict[str, Any]:
    split, row = entry.source
    read = {'image' if is_image else 'inputs': inputs[split][row]}
    return {**read, 'target': np.float32(targets[split][row])} if numbers else read

  notes = (f'arrays of {title} that are not read: {some(others)}',) if others else ()
  return Contents(
    splits,
    classes,
    lambda: _features(is_image, shape, numbers),
    example,
    'examples',
    notes,
    digest=digest,
  )


def _load(path: str, title: str) -> tuple[dict[str, np.ndarray], str]:
  try:
    with open(path, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
      raise ValueError('it holds one array without a name, as np.save writes')
    with opened as file:
      progress = Progress(f'reading {title}', len(file.files), 'arrays')
      found = {}
      for name in file.files:
        found[name] = _array(file, name, title)
        progress.add()
      return found, digest
  except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    if 'pickled' in str(error):
      reason = 'it is no file that NumPy wrote'
    raise UserError(
      f'config.data.name={title} cannot be read ({reason}); write it with '
      "np.savez('data.npz', x_train=…, y_train=…, x_test=…, y_test=…)"
    ) from error


def _array(file: Any, name: str, title: str) -> np.ndarray:
  try:
    return np.asarray(file[name])
  except ValueError as error:
    if 'allow_pickle' not in str(error):
      raise
    raise UserError(
      f'{title}: the array "{name}" holds Python objects, which may run code when they are loaded; '
      'write it as numbers or as a NumPy array of text'
    ) from error


def _pairs(
  arrays: Mapping[str, np.ndarray], title: str
) -> tuple[dict[str | None, dict[str, tuple[str, np.ndarray]]], list[str]]:
  """Finds inputs 'x' and targets 'y' of every split, each with its name; and what is neither."""
  pairs: dict[str | None, dict[str, tuple[str, np.ndarray]]] = {}
  others = []
  for name, array in arrays.items():
    words = re.split(r'[_\-. ]+', name.lower())
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS]
    role = 'x' if rest in [[w] for w in _INPUTS] else 'y' if rest in [[w] for w in _TARGETS] else ''
    if not role or len(splits) > 1:
      others.append(name)
      continue
    pair = pairs.setdefault(splits[0] if splits else None, {})
    if role in pair:
      raise UserError(
        f'{title} has two arrays for the same, "{pair[role][0]}" and "{name}"; leave one out'
      )
    pair[role] = (name, array)
  whole = {split: pair for split, pair in pairs.items() if 'x' in pair}
  if not whole or len(whole) < len(pairs) or (None in whole and len(whole) > 1):
    raise UserError(
      f'{title} has the arrays {some([*arrays], 10) or "(none)"}, and needs x_train and y_train, '
      'and with a test split x_test and y_test; or image (or x) and label (or y) without splits'
    )
  return whole, others


def _inputs(name: str, array: np.ndarray, title: str, own: Own) -> np.ndarray:
  """Returns images uint8 [N, H, W, C], or rows of numbers float32 [N, D]."""
  if array.ndim not in (2, 3, 4) or not len(array):
    raise UserError(
      f'{title}: "{name}" has the shape {array.shape}; images are (N, height, width) or (N, '
      'height, width, channels), rows of numbers (N, columns)'
    )
  if array.dtype.kind not in 'uifb':
    raise UserError(f'{title}: "{name}" holds {array.dtype}; write it as numbers')
  return _rows(name, array, title) if array.ndim == 2 else _images(name, array, title, own)


def _rows(name: str, array: np.ndarray, title: str) -> np.ndarray:
  with np.errstate(over='ignore'):
    narrow = array.astype(np.float32)
  bad = np.argwhere(~np.isfinite(narrow))
  if len(bad):
    row, column = bad[0]
    raise UserError(
      f'{title}: row {row}, column {column} of "{name}" is {array[row, column]}, the first of '
      f'{len(bad):,} values that are missing or too large; replace them'
    )
  return narrow


def _images(name: str, array: np.ndarray, title: str, own: Own) -> np.ndarray:
  import PIL.Image

  whole = array.dtype.kind in 'uib' and array.min() >= 0 and array.max() <= 255
  if not whole:
    span = f'from {array.min()} to {array.max()}'
    raise UserError(
      f'{title}: "{name}" is {array.dtype} {span}, and images are whole numbers from 0 to 255; '
      "convert it, e.g. (255 * x).round().astype('uint8') of numbers from 0 to 1"
    )
  pixels = (array if array.ndim == 4 else array[..., None]).astype(np.uint8)
  if array.dtype.kind == 'b':
    pixels *= 255
  channels = pixels.shape[-1]
  if channels not in (1, 3, 4):
    first = ', e.g. by np.moveaxis(x, 1, -1)' if pixels.shape[1] in (1, 3, 4) else ''
    raise UserError(
      f'{title}: "{name}" has the shape {array.shape}, whose last axis must be 1, 3 or 4 channels; '
      f'bring them there{first}'
    )
  size = own.image.height_width or pixels.shape[1:3]
  wanted = own.image.channels or channels
  if (*size, wanted) == pixels.shape[1:]:
    return pixels
  pictures = (PIL.Image.fromarray(row[..., 0] if channels == 1 else row) for row in pixels)
  return np.stack([fit_image(each, size, wanted, own.image.resize) for each in pictures])


def _targets(
  pairs: Mapping[str | None, Mapping[str, tuple[str, np.ndarray]]],
  inputs: Mapping[str | None, np.ndarray],
  title: str,
) -> tuple[dict[str | None, np.ndarray], tuple[str, ...]]:
  """Returns the targets of every split, [N] of numbers or text, and the names of the classes."""
  found: dict[str | None, np.ndarray] = {}
  for split, pair in pairs.items():
    if 'y' not in pair:
      continue
    name, array = pair['y']
    if array.ndim == 2 and array.shape[1] == 1:
      array = array[:, 0]
    if array.ndim != 1 or len(array) != len(inputs[split]):
      one_hot = ', e.g. y.argmax(1) of one-hot rows' if array.ndim == 2 else ''
      raise UserError(
        f'{title}: "{name}" has the shape {pair["y"][1].shape}, and must have one value for each '
        f'of {len(inputs[split]):,} examples{one_hot}'
      )
    if array.dtype.kind == 'f' and not np.isfinite(array.astype(np.float32)).all():
      raise UserError(f'{title}: "{name}" has missing or infinite values; leave these examples out')
    if array.dtype.kind not in 'uifbUS':
      raise UserError(f'{title}: "{name}" holds {array.dtype}; write it as numbers or text')
    found[split] = np.char.decode(array) if array.dtype.kind == 'S' else array
  if not found or any(array.dtype.kind == 'f' for array in found.values()):
    return found, ()
  names = {str(value) for array in found.values() for value in np.unique(array)}
  if any(array.dtype.kind in 'ui' for array in found.values()) and len(names) > _MOST_CLASSES:
    return {split: array.astype(np.float32) for split, array in found.items()}, ()
  return found, listing.sorted_classes({listing.class_name(name, title) for name in names})


def _is_few(targets: Mapping[str | None, np.ndarray]) -> bool:
  """Whether targets are whole numbers, which can be classes and a regression's targets."""
  return bool(targets) and all(array.dtype.kind in 'ui' for array in targets.values())


def _entries(
  split: str | None,
  inputs: np.ndarray,
  targets: np.ndarray | None,
  classes: tuple[str, ...],
  title: str,
) -> list[Entry]:
  entries = []
  for row in range(len(inputs)):
    digest = hashlib.sha256(inputs[row].tobytes())
    value = None if targets is None else targets[row]
    if value is not None and not classes:
      digest.update(np.float64(value).tobytes())
    label = listing.class_name(str(value), title) if classes else None
    entries.append(Entry(digest.digest(), label, (split, row), f'row {row}'))
  return entries


def _features(is_image: bool, shape: tuple[int, ...], numbers: bool) -> dict[str, Any]:
  import tensorflow_datasets as tfds

  coded = tfds.features.Encoding.BYTES
  image = {'image': tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=coded)}
  rows = {'inputs': tfds.features.Tensor(shape=shape, dtype=np.float32)}
  target = {'target': tfds.features.Scalar(np.float32)} if numbers else {}
  return {**(image if is_image else rows), **target}
