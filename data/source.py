"""A data set by name: found, prepared if need be, and read at random."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import errors
from data import folders, prepare, prepared
from data.folders import cache_dir
from data.spec import Feature, Spec

__all__ = ['Source', 'Spec', 'cache_dir', 'open_source']

_LABEL_DTYPES = ('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'bool')


class Source:
  """One split of a prepared data set. Nothing is opened, nor TFDS imported, before `read`.

  Attributes:
    spec: what an example looks like.
    stamp: changes when the data set is prepared again.
  """

  def __init__(self, name: str, split: str, folder: prepared.Prepared):
    self._folder = folder
    self._split = split
    self._records = None
    self._decode = None
    self.stamp = folder.stamp
    n = folder.count(split)
    features, num_classes = self._features(name)
    self.spec = Spec(name, split, n, features, num_classes, folder.identity(split, n))

  def __len__(self) -> int:
    return self.spec.n

  def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the decoded examples, each feature of the spec stacked along a new first axis.

    Raises:
      UserError: the images differ in size.
    """
    examples = self._examples(indices)
    return {
      name: self._stack(name, [example[name] for example in examples])
      for name in self.spec.features
    }

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes open the files themselves.
    return {**self.__dict__, '_records': None, '_decode': None}

  def _stack(self, name: str, values: list[Any]) -> np.ndarray:
    shape, dtype = self.spec.features[name]
    if any(np.shape(value) != shape for value in values):
      raise errors.UserError(
        f'The images of {self.spec.name} differ in size, and there is no option to resize them '
        'yet: use a data set whose images are all alike.'
      )
    return np.asarray(values, dtype)

  def _features(self, name: str) -> tuple[dict[str, Feature], int]:
    image = self._folder.feature('image')
    if image is None or image[0][1] != 'uint8' or len(image[0][0]) != 3:
      has = ', '.join(self._folder.feature_names())
      raise errors.UserError(
        f'Data set {name} has no feature "image" of bytes in (height, width, channels), only '
        f'{has}: choose a data set of images.'
      )
    (shape, _), _ = image
    if min(shape) < 0:  # TFDS allows mixed sizes; they may be alike all the same
      shape = self._examples([0])[0]['image'].shape
    if not self._has_label():
      return {'image': (shape, 'uint8')}, 0
    return {'image': (shape, 'uint8'), 'label': ((), 'int32')}, self._folder.feature('label')[1]

  def _has_label(self) -> bool:
    label = self._folder.feature('label')
    return label is not None and label[0] in [((), dtype) for dtype in _LABEL_DTYPES]

  def _examples(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    if self._decode is None:
      self._open()
    records = self._records.__getitems__([int(index) for index in indices])
    return [self._decode(record) for record in records]

  def _open(self) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(self._folder.folder)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    self._records = builder.as_data_source(self._split, deserialize_method=raw)
    # Decoding only what is used is quicker, and some other features would need TensorFlow.
    names = ('image', 'label') if self._has_label() else ('image',)
    used = tfds.features.FeaturesDict({name: builder.info.features[name] for name in names})
    with _no_warnings():  # TFDS asks once for OpenCV, which is hardly faster on small images
      used.deserialize_example_np(self._records[0])
    self._decode = used.deserialize_example_np


def open_source(name: str, split: str, data_dir: str) -> Source:
  """Returns a split of the data set `name`, preparing the data set first where that is needed.

  Args:
    name: a prepared TFDS data set ('fashion_mnist', 'dataset/config', 'dataset:1.0.0') or the name
      of a builder in data/builders.
    split: a TFDS split, e.g. 'train', 'test', 'train[90%:]'.
    data_dir: the TFDS folder to look in first; '' means $TFDS_DATA_DIR or ~/tensorflow_datasets.
      The second is our own cache.

  Raises:
    UserError: no such data set or split, its raw files cannot be had, or it cannot be read.
  """
  found = prepared.find(name, folders.roots(data_dir))
  if found is None:
    _prepare(name, data_dir)
    found = prepared.find(name, folders.roots(data_dir))
  if found is None:
    raise errors.UserError(
      f'Data set "{name}" was prepared, but in another version: leave ":version" away.'
    )
  return Source(name, split, found)


def _prepare(name: str, data_dir: str) -> None:
  base, _, _ = prepared.split_name(name)
  roots = folders.roots(data_dir)
  if base not in prepare.builders():
    known = [*prepare.builders(), *prepared.names(roots)]
    raise errors.UserError(
      f'There is no data set "{name}"{errors.nearest(name, known)} in {roots[0]} or {roots[1]}; '
      f'known are {", ".join(dict.fromkeys(known))}: prepare it with TFDS in the format '
      f'{prepared.FORMAT}, or write data/builders/{base}.py.'
    )
  root = folders.writable_root(data_dir)
  searched = dict.fromkeys((root, *roots))
  prepare.prepare(name, root, [folder / 'downloads' for folder in searched])


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)
