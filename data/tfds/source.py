"""One split of a prepared TFDS data set, decoded without TensorFlow."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import errors
from data import arrays
from data.examples import Examples, Indices, blocks
from data.spec import Feature, Spec
from data.tfds import bucket, catalog, content, images

_LEAVE_OUT = 'or leave out what cannot be read with config.data.corrupt=skip'
_INTEGERS = ('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'bool')
_FLOATS = ('float16', 'float32', 'float64')
_BLOCK = 1024  # examples decoded at a time where one column of all is read
_HASHED = 256  # records read at a time where all are hashed: they can be large


class Unreadable(errors.UserError):
  """A stored example cannot be read, because its record or image is damaged.

  Attributes:
    reason: which record it is and what is wrong with it, without a way out.
  """

  # Worker processes pass it on, for which all but the message must have a default.
  def __init__(self, message: str, reason: str = ''):
    super().__init__(message)
    self.reason = reason


class Source(Examples):
  """One split of a prepared data set.

  Its stored examples are hashed the first time it is opened; after that no record file is opened,
  nor TFDS imported, before `read`.

  Args:
    name: the name under which the data set was requested.
    split: a TFDS split.
    folder: the data set.
    columns: further scalar integer features to read.
    where: the option that holds the split, as a user writes it, for messages.
    tolerant: whether examples that cannot be read are found by `read` alone; else they are refused
      when the split is opened, if their records are damaged.

  Raises:
    UserError: there is no such split or column, or no feature that can be a model's input; or a
      record file is missing or damaged.
  """

  def __init__(
    self,
    name: str,
    split: str,
    folder: catalog.Prepared,
    columns: Sequence[str] = (),
    where: str = 'config.data.split',
    tolerant: bool = False,
  ):
    self._folder = folder
    self._split = split
    self._title = f'{name} {split}'  # for messages
    self._tolerant = tolerant
    self._builder = self._records = None
    self._decode: dict[tuple[str, ...], Any] = {}
    self.stamp = folder.stamp
    n = self._n = folder.count(split, where)
    features, num_classes = self._features(name, columns)
    names = folder.class_names('label' if 'label' in features else 'kind') if num_classes else ()
    names = names or tuple(str(label) for label in range(num_classes))
    stored = content.hash_cached(folder, split, n, lambda: self._blocks(n), self.place, tolerant)
    # The same stored examples are others to a model if they are read or numbered in another way.
    identity = _digest([stored, sorted(features.items()), names])
    columns = folder.input_columns() if 'inputs' in features else ()
    self.spec = Spec(name, split, n, features, num_classes, identity, names, input_columns=columns)

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Reads and decodes examples: every feature of the spec, [B, …], B the number of indices.

    Raises:
      Unreadable: a record is damaged, an image cannot be decoded, or a text is not UTF-8.
      UserError: images differ in size, a label is no class, or a number is not finite.
    """
    values = self.features(indices, tuple(self.spec.features))
    for name, column in values.items():
      self._check_finite(name, column, indices)
    return values

  def column(self, name: str) -> np.ndarray:
    """Reads one feature of every example, [N, …], without decoding the others."""
    parts = [self.features(block, (name,))[name] for block in blocks(len(self), _BLOCK)]
    return np.concatenate(parts)

  def load(self) -> dict[str, np.ndarray]:
    """Reads all examples, [N, …] of each feature; decoded once and kept in the cache."""
    return arrays.decode_cached(self, self._decode_all)

  def __getstate__(self) -> dict[str, Any]:
    # Open files cannot be pickled; a worker process opens its own.
    return {**self.__dict__, '_builder': None, '_records': None, '_decode': {}}

  def _decode_all(self) -> arrays.Arrays:
    for name, (_, dtype) in self.spec.features.items():
      if dtype == 'float32':  # before the blocks, so that the message counts all rows
        self._check_finite(name, self.column(name), range(len(self)))
    return super().load()

  def _check_finite(self, name: str, values: np.ndarray, indices: Indices) -> None:
    """Raises UserError where numbers [B] or [B, D] are nan or infinite."""
    if values.dtype.kind != 'f' or np.isfinite(values).all():
      return
    bad = np.argwhere(~np.isfinite(values))
    row, *place = bad[0]
    column = [np.array_equal(each[1:], place) for each in bad]
    what = f'column {place[0]} of the {name}' if place else f'the {name}'
    raise errors.UserError(
      f'{what} of {self._title} is {values[tuple(bad[0])]} in example {indices[row]}, and not '
      f'finite in {sum(column):,} of {len(indices):,} examples; prepare the data set again with '
      'these values filled in, or without these examples'
    )

  def features(self, indices: Indices, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads some features of examples, as `read` does; numbers may not be finite."""
    examples = self._examples(indices, names)
    values = {
      name: self._stack(name, [example[name] for example in examples], indices) for name in names
    }
    if self.spec.num_classes and 'label' in values:
      _check_labels(values['label'], indices, self.spec)
    return values

  def _stack(self, name: str, values: list[Any], indices: Indices) -> np.ndarray:
    shape, dtype = self.spec.features[name]
    if dtype == 'string':
      return _objects([self._text(value, index) for value, index in zip(values, indices)])
    if -1 in shape:
      return _objects([np.asarray(value, dtype) for value in values])
    if name == 'image':
      values = [self._image(value, index, shape[-1]) for value, index in zip(values, indices)]
    for value, index in zip(values, indices):
      if np.shape(value) != shape:
        raise errors.UserError(
          f'the {name}s of {self._title} differ in size: that of example {index} is '
          f'{_size(np.shape(value))}, not {_size(shape)}, and there is no option to resize them '
          'yet; use a data set whose examples all have the same size'
        )
    return self._narrowed(name, np.asarray(values), indices)

  def _narrowed(self, name: str, values: np.ndarray, indices: Indices) -> np.ndarray:
    """Converts to the dtype of the spec, of 32 bits at most; UserError if a value does not fit."""
    dtype = self.spec.features[name][1]
    with np.errstate(over='ignore'):
      narrow = values.astype(dtype)
    lost = narrow != values if narrow.dtype.kind == 'i' else np.isinf(narrow) & ~np.isinf(values)
    if lost.any():
      place = tuple(np.argwhere(lost)[0])
      raise errors.UserError(
        f'the {name} of example {indices[place[0]]} of {self._title} is {values[place]}, which '
        f'does not fit in {dtype}; prepare the data set again with smaller numbers'
      )
    return narrow

  def _image(self, value: bytes | np.ndarray, index: int, channels: int) -> np.ndarray:
    if isinstance(value, np.ndarray):  # a tensor feature, not an encoded image
      return value
    try:
      return images.decode(value, channels)
    except ValueError as error:
      raise self._unreadable('image', index, f'{error}', 'with 8-bit images') from error

  def _text(self, value: bytes, index: int) -> str:
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise self._unreadable('text', index, 'is not UTF-8', 'with text that is') from error

  def _unreadable(self, name: str, index: int, what: str, how: str) -> Unreadable:
    reason = f'the {name} of example {index} of {self._title} {what}, {self.place(index)}'
    return Unreadable(f'{reason}; prepare the data set again {how}, {_LEAVE_OUT}', reason)

  def place(self, index: int) -> str:
    """Says in which record file an example is, e.g. 'record 7 of mnist-train.array_record-…'."""
    if self._builder is None:
      self._open()
    for each in self._builder.info.splits[self._split].file_instructions:
      if index < each.take:
        return f'record {each.skip + index} of {os.path.basename(each.filename)}'
      index -= each.take
    return 'of which no record file is known'

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
          f'{errors.nearest(column, whole)}; it has: {", ".join(whole) or "none"}'
        )
      features[column] = ((), 'int32')
    return features, num_classes

  def _inputs(self, name: str) -> dict[str, Feature]:
    """Returns the features that are a model's input: an image, the row of a table, or text."""
    image, inputs = self._folder.feature('image'), self._folder.feature('inputs')
    if image is not None and image[0][1] == 'uint8' and len(image[0][0]) == 3:
      shape = image[0][0]
      if min(shape) < 0:  # undeclared, so the sizes may vary; `_stack` checks that they do not
        shape = self._first_image(shape[-1]).shape
      return {'image': (shape, 'uint8')}
    if inputs is not None and inputs[0][1] in _FLOATS and len(inputs[0][0]) == 1:
      return {'inputs': (inputs[0][0], 'float32')}
    if self._folder.feature('text') == (((), 'string'), 0):
      return {'text': ((), 'string'), **self._kinds()}
    has = ', '.join(self._folder.feature_names())
    raise errors.UserError(
      f'data set {name} has no feature "image" of bytes in (height, width, channels), no row of '
      f'numbers "inputs" and no "text", only {has}; choose a data set of images or text, or a '
      'table'
    )

  def _first_image(self, channels: int) -> np.ndarray:
    for index in range(self._n):
      try:
        return self._image(self._examples([index], ('image',))[0]['image'], index, channels)
      except Unreadable:
        if not self._tolerant or index == self._n - 1:
          raise
    raise AssertionError('a split has an example')

  def _kinds(self) -> dict[str, Feature]:
    """Returns the features that mark stretches of the text by their kind, if there are any."""
    start, kind = self._folder.feature('kind_start'), self._folder.feature('kind')
    if not start or not kind or not kind[1] or self._is_scalar('label', _INTEGERS):
      return {}
    return {'kind_start': ((-1,), 'int32'), 'kind': ((-1,), 'int32')}

  def _is_scalar(self, name: str, dtypes: Sequence[str]) -> bool:
    feature = self._folder.feature(name)
    return feature is not None and feature[0] in [((), dtype) for dtype in dtypes]

  def _examples(self, indices: Indices, names: tuple[str, ...]) -> list[dict[str, Any]]:
    records = self._read_records(indices)
    if names not in self._decode:
      self._decode[names] = self._decoder(names)
    return [self._decoded(record, index, names) for record, index in zip(records, indices)]

  def _decoded(self, record: bytes, index: int, names: tuple[str, ...]) -> dict[str, Any]:
    try:
      return self._decode[names](record)
    except (ValueError, KeyError, TypeError) as error:  # an example of other features
      raise self._damaged(index, error) from error

  def _damaged(self, index: int, error: Exception) -> Unreadable:
    """The error for one record that cannot be read."""
    reason = f'{self.place(index)}, example {index} of {self._title}: {_first_line(error)}'
    return Unreadable(f'{catalog.damaged(self._folder.folder, reason)}, {_LEAVE_OUT}', reason)

  def _read_records(self, indices: Indices) -> Sequence[bytes]:
    try:
      if self._records is None:
        self._open()
      return self._records.__getitems__([int(index) for index in indices])
    except (errors.UserError, MemoryError):
      raise
    except Exception as error:  # TFDS and array_record raise many kinds for damaged files
      if len(indices) == 1 and self._records is not None:
        raise self._damaged(int(indices[0]), error) from error
      if self._records is None:
        raise catalog.damaged(self._folder.folder, _first_line(error)) from error
    # The error of a block does not say which record it is.
    return [self._read_records([index])[0] for index in indices]

  def _blocks(self, n: int) -> Iterator[Sequence[bytes | None]]:
    if self._records is None:
      try:
        self._open()
      except (errors.UserError, MemoryError):
        raise
      except Exception as error:
        raise catalog.damaged(self._folder.folder, _first_line(error)) from error
    for each in self._builder.info.splits[self._split].file_instructions:
      if not os.path.exists(each.filename):
        raise catalog.damaged(self._folder.folder, f'there is no {os.path.basename(each.filename)}')
    self._check_counts()
    for block in blocks(n, _HASHED):
      try:
        yield self._read_records(block)
      except Unreadable:
        if not self._tolerant:
          raise
        yield [self._read_or_none(index) for index in block]

  def _read_or_none(self, index: int) -> bytes | None:
    try:
      return self._read_records([index])[0]
    except Unreadable:
      return None

  def _open(self) -> None:
    import tensorflow_datasets as tfds

    self._builder = tfds.builder_from_directory(bucket.on_disk(self._folder, self._split))
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    self._records = self._builder.as_data_source(self._split, deserialize_method=raw)

  def _check_counts(self) -> None:
    """Raises UserError where a record file holds another number of examples than is described.

    TFDS reads what is described, and would leave some out without a word.
    """
    from array_record.python import array_record_module

    for split in self._builder.info.splits.values():
      for path, described in zip(split.filepaths, split.shard_lengths):
        if not os.path.exists(path):  # of another split, which is not copied from the bucket
          continue
        try:
          reader = array_record_module.ArrayRecordReader(os.fspath(path))
          held = reader.num_records()
          reader.close()
        except RuntimeError as error:
          raise catalog.damaged(self._folder.folder, _first_line(error)) from error
        if held != described:
          name = os.path.basename(path)
          raise catalog.damaged(
            self._folder.folder, f'{name} holds {held} examples, and {described} are described'
          )

  def _decoder(self, names: tuple[str, ...]) -> Callable[[bytes], dict[str, Any]]:
    import tensorflow_datasets as tfds

    # Decoding only the features used is faster, and others may need TensorFlow.
    stored = self._builder.info.features
    used = tfds.features.FeaturesDict({name: _still_encoded(stored[name]) for name in names})
    return used.deserialize_example_np


def _first_line(error: Exception) -> str:
  return (str(error).split(';')[0].strip().splitlines() or [type(error).__name__])[0]


def _digest(parts: Any) -> str:
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _size(shape: Sequence[int]) -> str:
  return ' × '.join(map(str, shape))


def _still_encoded(feature: Any) -> Any:
  """Returns the feature to read bytes with where `feature` is an encoded image.

  TFDS takes what Pillow holds for pixels, which is wrong for palettes, 1 bit and 16 bits.
  """
  import tensorflow_datasets as tfds

  return tfds.features.Text() if isinstance(feature, tfds.features.Image) else feature


def _objects(values: Sequence[Any]) -> np.ndarray:
  """Returns an object array [N] of texts, or of arrays of different lengths."""
  stacked = np.empty(len(values), object)
  for place, value in enumerate(values):  # np.array would stack arrays of equal length
    stacked[place] = value
  return stacked


def _check_labels(labels: np.ndarray, indices: Indices, spec: Spec) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels >= spec.num_classes))
  if wrong.size:
    at = int(wrong[0])
    raise errors.UserError(
      f'example {list(indices)[at]} of {spec.name} {spec.split} has the label {labels[at]}, but '
      f'the data set declares {spec.num_classes} classes, 0 to {spec.num_classes - 1}; prepare it '
      'again with the right number of classes'
    )
