"""Arrays that NumPy wrote: npz:PATH."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from data.array_files import INPUTS, as_images, as_rows, read_arrays
from data.own import listing
from data.own.contents import TRAIN, Contents, Entry, deal
from data.own.listing import SPLITS, Listing
from data.own.options import Own
from data.own.progress import Progress, some
from errors import UserError

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
    progress = Progress(f'reading {title}', 0, 'arrays')
    found = {}
    for name, array in read_arrays(path):
      found[name] = array
      progress.add()
    return found, digest
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    raise UserError(
      f'config.data.name={title} cannot be read ({reason}); write it with '
      "np.savez('data.npz', x_train=…, y_train=…, x_test=…, y_test=…), as numbers or text"
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
    role = 'x' if rest in [[w] for w in INPUTS] else 'y' if rest in [[w] for w in _TARGETS] else ''
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
  try:
    if array.ndim == 2:
      return as_rows(name, array)
    image = own.image
    return as_images(name, array, image.height_width, image.channels, image.resize)
  except ValueError as error:
    raise UserError(f'{title}: {error}') from error


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
