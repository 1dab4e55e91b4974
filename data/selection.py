"""Examples made from others: subsets of classes, folds, concatenated splits."""

import hashlib
from collections.abc import Sequence

import numpy as np

import errors
from data.examples import Examples, Indices
from data.spec import Spec


class _Subset(Examples):
  """A subset of `examples`: those at the indices `index`, int64 [N], in that order."""

  def __init__(self, examples: Examples, index: np.ndarray, spec: Spec):
    self._examples = examples
    self._index = index
    self.spec = spec
    self.stamp = examples.stamp

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return self._examples.read(self._index[np.asarray(indices, np.int64)])

  def load(self) -> dict[str, np.ndarray]:
    return {name: array[self._index] for name, array in self._examples.load().items()}

  def column(self, name: str) -> np.ndarray:
    return self._examples.column(name)[self._index]


class ClassSubset(_Subset):
  """The examples of some classes, in the order of the split, relabelled 0, 1, ….

  Args:
    examples: examples with classes.
    classes: labels to keep, each once; label `classes[i]` becomes i.

  Raises:
    UserError: the examples have no classes; or one of `classes` does not exist, is named twice or
      has no example.
  """

  def __init__(self, examples: Examples, classes: Sequence[int]):
    spec = examples.spec
    _check_classes(classes, spec)
    labels = examples.column('label')
    for label in classes:
      if not (labels == label).any():
        raise errors.UserError(
          f'{_option(classes)}: {spec.name} {spec.split} has no example of {label}'
        )
    self._new_label = np.full(spec.num_classes, -1, np.int32)
    self._new_label[list(classes)] = np.arange(len(classes))
    index = np.flatnonzero(np.isin(labels, classes))
    spec = spec._replace(
      n=len(index),
      num_classes=len(classes),
      identity=_digest(spec.identity, *map(str, classes)),
      class_names=tuple(spec.class_names[label] for label in classes),
    )
    super().__init__(examples, index, spec)

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return self._relabelled(super().read(indices))

  def load(self) -> dict[str, np.ndarray]:
    return self._relabelled(super().load())

  def column(self, name: str) -> np.ndarray:
    return self._relabelled({name: super().column(name)})[name]

  def _relabelled(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
      name: self._new_label[array] if name == 'label' else array for name, array in values.items()
    }


def _check_classes(classes: Sequence[int], spec: Spec) -> None:
  where = _option(classes)
  if not spec.num_classes or 'label' not in spec.features:
    raise errors.UserError(f'{where}: {spec.name} has no classes; leave it empty')
  for label in classes:
    if not (isinstance(label, int) and 0 <= label < spec.num_classes):
      raise errors.UserError(
        f'{where}: {label} is no class of {spec.name}, whose classes are 0 to '
        f'{spec.num_classes - 1} ({", ".join(spec.class_names)})'
      )
  if len(set(classes)) != len(classes):
    raise errors.UserError(f'{where} names a class twice')


def _option(classes: Sequence[int]) -> str:
  return f'config.data.classes={",".join(map(str, classes))}'


class Fold(_Subset):
  """One of several equal parts of the examples (held out), or all the others (to train on).

  A part is contiguous in the order of the split, which TFDS shuffled when it prepared the data set.
  All folds have the same number of training examples, so that they run the same program: if parts
  differ in size, the last training example is left out where the smaller ones are held out.

  Args:
    examples: the examples to cut into parts.
    fold: which part, from 0.
    folds: number of parts.
    held_out: True for the part itself, False for the others.

  Raises:
    UserError: there are fewer than two folds, more folds than examples, or no such fold.
  """

  def __init__(self, examples: Examples, fold: int, folds: int, held_out: bool):
    spec = examples.spec
    if not 2 <= folds <= spec.n:
      raise errors.UserError(
        f'the {spec.n:,} examples of {spec.name} {spec.split} cannot be cut into folds={folds}; '
        f'choose from 2 to {spec.n:,}'
      )
    if not 0 <= fold < folds:
      raise errors.UserError(f'config.data.fold={fold} must be from 0 to {folds - 1}')
    start, stop = fold_bounds(fold, folds, spec.n)
    if held_out:
      index = np.arange(start, stop)
    else:
      rest = np.r_[0:start, stop : spec.n]
      index = rest[: fold_training_size(folds, spec.n)]
    part = 'of' if held_out else 'without'
    spec = spec._replace(
      n=len(index),
      split=f'{spec.split}, {part} fold {fold} of {folds}',
      identity=_digest(spec.identity, part, str(fold), str(folds)),
    )
    super().__init__(examples, index, spec)


def fold_bounds(fold: int, folds: int, n: int) -> tuple[int, int]:
  """Returns the bounds (start, stop) of a fold in n examples; sizes differ by one at most."""
  return n * fold // folds, n * (fold + 1) // folds


def fold_training_size(folds: int, n: int) -> int:
  """Returns the number of training examples of every fold: n less the largest held-out part."""
  return n - -(-n // folds)


class Joined(Examples):
  """Several splits, concatenated.

  Args:
    parts: examples with the same features and number of classes.

  Raises:
    UserError: their features or numbers of classes differ.
  """

  def __init__(self, parts: Sequence[Examples]):
    first = parts[0].spec
    for part in parts[1:]:
      if (part.spec.features, part.spec.num_classes) != (first.features, first.num_classes):
        raise errors.UserError(
          f'{first.name} and {part.spec.name} cannot be joined: {_describe(first)} against '
          f'{_describe(part.spec)}; choose data sets with the same features and classes'
        )
    self._parts = parts
    self._starts = np.cumsum([0, *(len(part) for part in parts)])
    self.stamp = '-'.join(part.stamp for part in parts)
    self.spec = first._replace(
      name='+'.join(part.spec.name for part in parts),
      split='|'.join(dict.fromkeys(part.spec.split for part in parts)),
      n=int(self._starts[-1]),
      identity=_digest(*(part.spec.identity for part in parts)),
    )

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    index = np.asarray(indices, np.int64)
    part_of = np.searchsorted(self._starts, index, side='right') - 1
    values = {name: _empty(len(index), *feature) for name, feature in self.spec.features.items()}
    for number in np.unique(part_of):
      rows = np.flatnonzero(part_of == number)
      part = self._parts[number].read(index[rows] - self._starts[number])
      for name, value in part.items():
        values[name][rows] = value
    return values

  def load(self) -> dict[str, np.ndarray]:
    parts = [part.load() for part in self._parts]
    return {name: np.concatenate([part[name] for part in parts]) for name in self.spec.features}

  def column(self, name: str) -> np.ndarray:
    return np.concatenate([part.column(name) for part in self._parts])


def _empty(n: int, shape: Sequence[int], dtype: str) -> np.ndarray:
  ragged = dtype == 'string' or -1 in shape  # examples of different lengths
  return np.empty(n, object) if ragged else np.empty((n, *shape), dtype)


def _describe(spec: Spec) -> str:
  features = ', '.join(f'{name} {shape}' for name, (shape, _) in spec.features.items())
  return f'{features} with {spec.num_classes} classes'


def _digest(*parts: str) -> str:
  return hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]
