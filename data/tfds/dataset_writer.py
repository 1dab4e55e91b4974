"""Writes images that a model generated as a data set in TFDS's layout."""

import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

import errors
import files
from data import folders
from data.tfds import catalog, preparation

# TFDS keeps the PNGs of a record file in memory until the file is finished.
_IMAGES_PER_FILE = 10_000
# The names that TFDS can parse from the names of its files.
_NAME = re.compile(r'[A-Za-z]\w*', re.ASCII)
# The RuntimeError of array_record's writer when the operating system refuses a call.
_FAILED = re.compile(r'\w+\(\) failed: (.+?); writing ')


class Target(NamedTuple):
  """A data set to write: `root` is a TFDS folder, local or in a bucket."""

  name: str
  root: files.Path

  @property
  def folder(self) -> files.Path:
    """The data set's folder in `root`."""
    return self.root / self.name

  @property
  def searched(self) -> bool:
    """Whether `data.source.open_source` finds it without a `data_dir`."""
    return self.root in folders.roots('')


def target(out: str) -> Target:
  """Returns the data set that `[FOLDER/]NAME` names; without a folder it goes to our cache.

  Raises:
    UserError: the name is invalid, a builder in data/tfds/builders has it, or the data set exists.
  """
  folder, name = os.path.split(out.rstrip('/'))
  if not _NAME.fullmatch(name):
    raise errors.UserError(
      f'"{name}" of --out={out} cannot name a data set; use letters, digits and _, a letter first'
    )
  if name in preparation.builders():
    raise errors.UserError(
      f'--out={out}: data/tfds/builders/{name}.py makes the data set of that name; choose another'
    )
  given = files.path(folder) if folder else None
  found = Target(name, given or files.path(folders.cache_dir() / 'tfds'))
  for root in [given] if given else folders.roots(''):
    _check_new(root / name)
  return found


def write(
  target: Target,
  chunks: Iterable[Mapping[str, np.ndarray]],
  num: int,
  shape: Sequence[int],
  class_names: Sequence[str],
  description: str,
) -> files.Path:
  """Writes images as the split `train` of `target`, in the given order, and returns its folder.

  Chunks are read as they are written, so the images are never all in memory. They are written to a
  hidden folder, which is renamed, or uploaded to the bucket, once it is complete.

  Args:
    target: the data set.
    chunks: each holds `image` uint8 [n, H, W, C] and, if there are classes, `label` int [n].
    num: the number of images in all chunks.
    shape: (H, W, C) of an image.
    class_names: the names of the labels, in order; empty if there are no classes.
    description: the origin of the images, for people.

  Raises:
    UserError: the data set exists, the folder cannot be written, or the disk is full.
  """
  try:
    with preparation.staging(target.root, target.name) as folder:
      _check_new(target.folder)  # another process may have written it meanwhile
      builder = _Builder(target.name, chunks, num, shape, class_names, description, folder)
      builder.download_and_prepare()
      return preparation.publish(builder, folder, target.root)
  except OSError as error:
    raise _unwritable(target, error.strerror or str(error)) from error
  except RuntimeError as error:
    failed = _FAILED.match(str(error))
    if not failed:
      raise
    raise _unwritable(target, failed[1]) from error


def write_failure(place: str | os.PathLike, error: OSError | RuntimeError) -> str:
  """Returns why record files were not written at a place; '' for an error of another kind."""
  if isinstance(error, OSError):
    return files.why_not_written(place, error)
  failed = _FAILED.match(str(error))
  return failed[1] if failed else ''


def _unwritable(target: Target, reason: str) -> errors.UserError:
  return errors.UserError(
    f'cannot write data set {target.folder} ({reason}); make room there, or name another folder: '
    f'--out=FOLDER/{target.name}'
  )


def _check_new(folder: files.Path) -> None:
  if folder.exists():
    way_out = 'choose another name' + (', or delete that folder' if folder.is_dir() else '')
    raise errors.UserError(f'--out: {folder} exists already; {way_out}')


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """Writes one record file at a time; a GeneratorBasedBuilder would keep all images in memory."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(
    self,
    name: str,
    chunks: Iterable[Mapping[str, np.ndarray]],
    num: int,
    shape: Sequence[int],
    class_names: Sequence[str],
    description: str,
    data_dir: os.PathLike,
  ):
    self.name = name
    self._chunks, self._num = chunks, num
    self._description = description
    self._features = {'image': tfds.features.Image(shape=tuple(shape))}
    if class_names:
      self._features['label'] = tfds.features.ClassLabel(names=list(class_names))
    super().__init__(data_dir=data_dir, file_format=catalog.FORMAT)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self._description,
      features=tfds.features.FeaturesDict(self._features),
      supervised_keys=('image', 'label') if 'label' in self._features else None,
      disable_shuffling=True,
    )

  def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list]:
    examples = enumerate(self._examples())
    files = -(-self._num // _IMAGES_PER_FILE)
    return {'train': [lambda: itertools.islice(examples, _IMAGES_PER_FILE)] * files}

  def _examples(self) -> Iterator[dict[str, Any]]:
    for chunk in self._chunks:
      for row, image in enumerate(chunk['image']):
        labels = {'label': int(chunk['label'][row])} if 'label' in self._features else {}
        yield {'image': _png(image), **labels}

  def _log_download_bytes(self) -> None:
    """Prints nothing: there is no download, and the caller reports what is written."""

  _log_download_done = _log_download_bytes


def _png(image: np.ndarray) -> bytes:
  """Encodes a uint8 image [H, W, C] with 1, 3 or 4 channels as PNG."""
  file = io.BytesIO()
  PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format='PNG')
  return file.getvalue()
