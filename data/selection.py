"""Examples made from others: subsets of classes, renumbered classes, folds, concatenated splits."""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

import errors
from data.examples import Examples, Indices
from data.spec import InputColumn, Spec


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
    return _renumbered(values, 'label', self._new_label)


class Relabelled(Examples):
  """Examples whose labels, or kinds of tokens, are numbered in another order of the classes.

  Args:
    examples: examples with classes.
    class_names: their class names, in the order to number them in.
  """

  def __init__(self, examples: Examples, class_names: Sequence[str]):
    spec = examples.spec
    self._examples = examples
    self._feature = 'label' if 'label' in spec.features else 'kind'
    self._new_label = np.array([class_names.index(name) for name in spec.class_names], np.int32)
    self.stamp = examples.stamp
    self.spec = spec._replace(
      identity=_digest(spec.identity, *map(str, self._new_label)), class_names=tuple(class_names)
    )

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return _renumbered(self._examples.read(indices), self._feature, self._new_label)

  def load(self) -> dict[str, np.ndarray]:
    return _renumbered(self._examples.load(), self._feature, self._new_label)

  def column(self, name: str) -> np.ndarray:
    values = {name: self._examples.column(name)}
    return _renumbered(values, self._feature, self._new_label)[name]


def match_classes(examples: Examples, spec: Spec, subset: bool = False) -> Examples:
  """Numbers the classes of `examples` as `spec` numbers those of the same names.

  Args:
    examples: the examples to match.
    spec: the description of other examples; without classes there is nothing to match.
    subset: whether `spec` has some of the classes only, and the examples of these are kept.

  Raises:
    UserError: the names of the classes differ.
  """
  own, names = examples.spec.class_names, spec.class_names
  if not spec.num_classes or (own == names and not subset):
    return examples
  lacking = [name for name in names if name not in own]
  more = [] if subset else [name for name in own if name not in names]
  if lacking or more or len({*own}) != len(own):
    raise errors.UserError(
      f'the classes of {examples.spec.name} and {spec.name} are matched by name, and they differ: '
      f'only {spec.name} has {_some(lacking)}, only {examples.spec.name} has {_some(more)}; use '
      'data sets whose classes have the same names'
    )
  if subset:
    return ClassSubset(examples, [own.index(name) for name in names])
  return Relabelled(examples, names)


def check_input_columns(examples: Examples, spec: Spec) -> None:
  """Raises UserError where the inputs of two tables are made of their columns in different ways.

  Args:
    examples: of one table.
    spec: the description of the other. Tables that do not say it of their columns are not compared.
  """
  own, others = examples.spec.input_columns, spec.input_columns
  if not own or not others or own == others:
    return
  pairs = itertools.zip_longest(own, others, fillvalue=InputColumn('(none)'))
  a, b = next((a, b) for a, b in pairs if a != b)
  differing = {
    'name': f'the column "{a.name}" stands for "{b.name}"',
    'words': f'the words of "{a.name}" are {_some(a.words)} for {_some(b.words)}',
    'fill': f'missing values of "{a.name}" are {_filled(a)} for {_filled(b)}',
    'is_truth': f'"{a.name}" holds true and false in one of them only',
  }
  first = next(name for name in differing if getattr(a, name) != getattr(b, name))
  raise errors.UserError(
    f'the inputs of {examples.spec.name} and {spec.name} differ: {differing[first]}; put the rows '
    'into one table, or into a folder as train.csv and test.csv, which are prepared alike'
  )


def _filled(column: InputColumn) -> str:
  return 'refused' if column.fill is None else f'{column.fill:g}'


def _some(names: Sequence[str]) -> str:
  """Lists the first of many names."""
  return ', '.join([*map(repr, names[:5]), *(['…'] if len(names) > 5 else [])]) or 'none'


def _renumbered(
  values: dict[str, np.ndarray], feature: str, new_label: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns `values` with the numbers of one feature replaced; those of text are [N] of arrays."""
  if feature not in values:
    return values
  old = values[feature]
  if old.dtype != object:
    return {**values, feature: new_label[old]}
  new = np.empty(len(old), object)
  for i, each in enumerate(old):
    new[i] = new_label[each]
  return {**values, feature: new}


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
        f'the {spec.n:,} examples of {spec.name} {spec.split} cannot be cut into folds={folds} '
        f'(config.data.folds); choose from 2 to {spec.n:,}'
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
  """Several splits, concatenated; classes are matched by name and numbered as in the first.

  Args:
    parts: examples with the same features and classes.

  Raises:
    UserError: their features, numbers of classes, class names or the columns of tables differ.
  """

  def __init__(self, parts: Sequence[Examples]):
    first = parts[0].spec
    for part in parts[1:]:
      check_input_columns(part, first)
      if (part.spec.features, part.spec.num_classes) != (first.features, first.num_classes):
        raise errors.UserError(
          f'{first.name} and {part.spec.name} cannot be joined: {_describe(first)} against '
          f'{_describe(part.spec)}; choose data sets with the same features and classes'
        )
    parts = [parts[0], *(match_classes(part, first) for part in parts[1:])]
    self._parts = parts
    self._starts = np.cumsum([0, *(len(part) for part in parts)])
    self.stamp = '-'.join(part.stamp for part in parts)
    self.spec = first._replace(
      name='+'.join(part.spec.name for part in parts),
      split='|'.join(dict.fromkeys(part.spec.split for part in parts)),
      n=int(self._starts[-1]),
      identity=_digest(*(part.spec.identity for part in parts)),
      left_out=sum(part.spec.left_out for part in parts),
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
