"""A data set by name: found, prepared if need be, and read at random."""

import contextlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

import errors
from data import folders
from data.folders import cache_dir
from data.selection import Joined, OfClasses
from data.spec import Feature, Spec
from data.tfds import catalog, preparation

__all__ = ['Examples', 'Source', 'Spec', 'cache_dir', 'open_source']

_INTEGERS = ('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'bool')
_FLOATS = ('float16', 'float32', 'float64')
# Examples decoded at a time when one column is wanted of all.
_BLOCK = 1024


class Examples(Protocol):
  """Examples that are read at random: a split of a data set, some of its classes, several joined.

  Those that are chosen from others have `gather(load)`, which makes arrays of all of them from what
  `load` gives of the others. Those whose arrays are not one row an example, such as the windows of
  a long text, have `nbytes`, the size of these arrays, and `rows(arrays, index)`, which cuts the
  examples `index` [B] out of them: a pure function of NumPy or JAX arrays.

  Attributes:
    spec: what an example looks like.
    stamp: changes when the data set is prepared again.
  """

  spec: Spec
  stamp: str

  def __len__(self) -> int:
    """How many examples there are."""

  def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the decoded examples, each feature of the spec stacked along a new first axis."""


class Source:
  """One split of a prepared data set. Nothing is opened, nor TFDS imported, before `read`.

  Attributes:
    spec: what an example looks like.
    stamp: changes when the data set is prepared again.
  """

  def __init__(self, name: str, split: str, folder: catalog.Prepared, columns: Sequence[str] = ()):
    self._folder = folder
    self._split = split
    self._records = None
    self._decode: dict[tuple[str, ...], Any] = {}
    self.stamp = folder.stamp
    n = folder.count(split)
    features, num_classes = self._features(name, columns)
    names = folder.class_names('label' if 'label' in features else 'kind') if num_classes else ()
    names = names or tuple(str(label) for label in range(num_classes))
    identity = folder.identity(split, n)
    if columns:
      identity = f'{identity}-{zlib.crc32(repr(sorted(features)).encode()):08x}'
    self.spec = Spec(name, split, n, features, num_classes, identity, names)

  def __len__(self) -> int:
    return self.spec.n

  def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the decoded examples, each feature of the spec stacked along a new first axis.

    Raises:
      UserError: the images differ in size, a label is none of the classes, or a text is no UTF-8.
    """
    return self._read(indices, tuple(self.spec.features))

  def column(self, name: str) -> np.ndarray:
    """Returns one feature of every example, [N, …]; the others are not decoded."""
    blocks = (range(start, min(start + _BLOCK, len(self))) for start in range(0, len(self), _BLOCK))
    return np.concatenate([self._read(block, (name,))[name] for block in blocks])

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes open the files themselves.
    return {**self.__dict__, '_records': None, '_decode': {}}

  def _read(self, indices: Sequence[int], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    examples = self._examples(indices, names)
    values = {
      name: self._stack(name, [example[name] for example in examples], indices) for name in names
    }
    if self.spec.num_classes and 'label' in values:
      _check_labels(values['label'], indices, self.spec)
    return values

  def _stack(self, name: str, values: list[Any], indices: Sequence[int]) -> np.ndarray:
    shape, dtype = self.spec.features[name]
    if dtype == 'string':
      return _objects([self._text(value, index) for value, index in zip(values, indices)])
    if -1 in shape:
      return _objects([np.asarray(value, dtype) for value in values])
    if any(np.shape(value) != shape for value in values):
      raise errors.UserError(
        f'The {name}s of {self.spec.name} differ in size, and there is no option to resize them '
        'yet: use a data set whose examples are all alike.'
      )
    return np.asarray(values, dtype)

  def _text(self, value: bytes, index: int) -> str:
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f'The text of example {index} of {self.spec.name} {self.spec.split} is not UTF-8: prepare '
        'the data set again with text that is.'
      ) from error

  def _features(self, name: str, columns: Sequence[str]) -> tuple[dict[str, Feature], int]:
    features = self._inputs(name)
    num_classes = 0
    if self._is_scalar('label', _INTEGERS):
      features['label'] = ((), 'int32')
      num_classes = self._folder.feature('label')[1]
    elif 'kind' in features:
      num_classes = self._folder.feature('kind')[1]
    if self._is_scalar('target', _FLOATS):
      features['target'] = ((), 'float32')
    for column in columns:
      if not self._is_scalar(column, _INTEGERS):
        whole = [key for key in self._folder.feature_names() if self._is_scalar(key, _INTEGERS)]
        raise errors.UserError(
          f'config.data.columns={column}: data set {name} has no such column of whole numbers'
          f'{errors.nearest(column, whole)}; it has: {", ".join(whole) or "none"}.'
        )
      features[column] = ((), 'int32')
    return features, num_classes

  def _inputs(self, name: str) -> dict[str, Feature]:
    """What a model sees of an example: an image, the row of a table, or text."""
    image, inputs = self._folder.feature('image'), self._folder.feature('inputs')
    if image is not None and image[0][1] == 'uint8' and len(image[0][0]) == 3:
      shape = image[0][0]
      if min(shape) < 0:  # TFDS allows mixed sizes; they may be alike all the same
        shape = self._examples([0], ('image',))[0]['image'].shape
      return {'image': (shape, 'uint8')}
    if inputs is not None and inputs[0][1] in _FLOATS and len(inputs[0][0]) == 1:
      return {'inputs': (inputs[0][0], 'float32')}
    if self._folder.feature('text') == (((), 'string'), 0):
      return {'text': ((), 'string'), **self._kinds()}
    has = ', '.join(self._folder.feature_names())
    raise errors.UserError(
      f'Data set {name} has no feature "image" of bytes in (height, width, channels), no row of '
      f'numbers "inputs" and no "text", only {has}: choose a data set of images or text, or a '
      'table.'
    )

  def _kinds(self) -> dict[str, Feature]:
    """Of what kind each stretch of the text is, and at which byte it starts, if that is said."""
    start, kind = self._folder.feature('kind_start'), self._folder.feature('kind')
    if not start or not kind or not kind[1] or self._is_scalar('label', _INTEGERS):
      return {}
    return {'kind_start': ((-1,), 'int32'), 'kind': ((-1,), 'int32')}

  def _is_scalar(self, name: str, dtypes: Sequence[str]) -> bool:
    feature = self._folder.feature(name)
    return feature is not None and feature[0] in [((), dtype) for dtype in dtypes]

  def _examples(self, indices: Sequence[int], names: tuple[str, ...]) -> list[dict[str, Any]]:
    if names not in self._decode:
      self._open(names)
    records = self._records.__getitems__([int(index) for index in indices])
    return [self._decode[names](record) for record in records]

  def _open(self, names: tuple[str, ...]) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(self._folder.folder)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    self._records = builder.as_data_source(self._split, deserialize_method=raw)
    # Decoding only what is used is quicker, and some other features would need TensorFlow.
    used = tfds.features.FeaturesDict({name: builder.info.features[name] for name in names})
    with _no_warnings():  # TFDS asks once for OpenCV, which is hardly faster on small images
      used.deserialize_example_np(self._records[0])
    self._decode[names] = used.deserialize_example_np


def _objects(values: Sequence[Any]) -> np.ndarray:
  """Returns an array [N] of anything: texts, or arrays of different lengths."""
  stacked = np.empty(len(values), object)
  for place, value in enumerate(values):  # NumPy would take arrays that are equally long apart
    stacked[place] = value
  return stacked


def _check_labels(labels: np.ndarray, indices: Sequence[int], spec: Spec) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels >= spec.num_classes))
  if wrong.size:
    at = int(wrong[0])
    raise errors.UserError(
      f'Example {list(indices)[at]} of {spec.name} {spec.split} has the label {labels[at]}, but '
      f'the data set says it has {spec.num_classes} classes, 0 to {spec.num_classes - 1}: prepare '
      'it again with the right number of classes.'
    )


def open_source(
  name: str, split: str, data_dir: str, classes: Sequence[int] = (), columns: Sequence[str] = ()
) -> Examples:
  """Returns a split of the data set `name`, preparing the data set first where that is needed.

  Args:
    name: a prepared TFDS data set ('fashion_mnist', 'dataset/config', 'dataset:1.0.0') or the name
      of a builder in data/tfds/builders; several joined by '+' follow one another.
    split: a TFDS split, e.g. 'train', 'test', 'train[90%:]'; of several data sets the same one of
      each, or one for each with '|' between them, 'train[:500]|train'.
    data_dir: the TFDS folder to look in first; '' means $TFDS_DATA_DIR or ~/tensorflow_datasets.
      The second is our own cache.
    classes: only the examples of these labels, which become 0, 1, … in this order; empty for all.
    columns: further scalar features of whole numbers to read.

  Raises:
    UserError: no such data set or split, its raw files cannot be had, or it cannot be read.
  """
  names, splits = name.split('+'), split.split('|')
  if len(splits) not in (1, len(names)):
    raise errors.UserError(
      f'config.data.split={split} has {len(splits)} splits for the {len(names)} data sets of '
      f'{name}: give one for all, or one for each.'
    )
  pairs = zip(names, splits * (len(names) // len(splits)))
  sources = [_open_one(part, chosen, data_dir, columns) for part, chosen in pairs]
  source = sources[0] if len(sources) == 1 else Joined(sources)
  return OfClasses(source, tuple(classes)) if len(tuple(classes)) else source


def _open_one(name: str, split: str, data_dir: str, columns: Sequence[str]) -> Source:
  found = catalog.find(name, folders.roots(data_dir))
  if found is None:
    _prepare(name, data_dir)
    found = catalog.find(name, folders.roots(data_dir))
  if found is None:
    raise errors.UserError(
      f'Data set "{name}" was prepared, but in another version: leave ":version" away.'
    )
  return Source(name, split, found, columns)


def _prepare(name: str, data_dir: str) -> None:
  base, _, _ = catalog.split_name(name)
  roots = folders.roots(data_dir)
  if base not in preparation.builders():
    known = [*preparation.builders(), *catalog.names(roots)]
    raise errors.UserError(
      f'There is no data set "{name}"{errors.nearest(name, known)} in {roots[0]} or {roots[1]}; '
      f'known are {", ".join(dict.fromkeys(known))}: prepare it with TFDS in the format '
      f'{catalog.FORMAT}, or write data/tfds/builders/{base}.py.'
    )
  root = folders.writable_root(data_dir)
  searched = dict.fromkeys((root, *roots))
  preparation.prepare(name, root, [folder / 'downloads' for folder in searched])


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)
