"""Classes, folds and joined splits hold exactly the examples they are said to hold."""

import numpy as np
import pytest

import errors
from data import source
from data.selection import ClassSubset, Fold, Joined


@pytest.fixture(scope='module')
def part(prepared_root):
  return source.open_source('mnist5k', 'train[:60]', str(prepared_root))


def everything(examples):
  return examples.read(range(len(examples)))


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(a[name], b[name])


def test_classes_are_kept_in_order_and_named_anew(part):
  whole = everything(part)
  got = ClassSubset(part, (5, 3))
  wanted = np.flatnonzero(np.isin(whole['label'], (3, 5)))
  seen = everything(got)
  np.testing.assert_array_equal(seen['image'], whole['image'][wanted])
  np.testing.assert_array_equal(seen['label'], np.where(whole['label'][wanted] == 5, 0, 1))
  assert seen['label'].dtype == np.int32
  assert (got.spec.n, got.spec.num_classes, got.spec.class_names) == (len(wanted), 2, ('5', '3'))
  np.testing.assert_array_equal(got.column('label'), seen['label'])
  assert_same(got.load(), seen)
  assert got.spec.identity != ClassSubset(part, (3, 5)).spec.identity != part.spec.identity


def test_open_source_takes_classes(prepared_root):
  got = source.open_source('mnist5k', 'test', str(prepared_root), classes=(3, 5))
  assert (got.spec.n, got.spec.num_classes) == (200, 2)


@pytest.mark.parametrize(
  ('classes', 'message'),
  [
    ((3, 10), r'classes=3,10: 10 is no class of mnist5k, whose classes are 0 to 9'),
    ((3, 3), 'names a class twice'),
    (('three',), 'three is no class'),
  ],
)
def test_wrong_classes(part, classes, message):
  with pytest.raises(errors.UserError, match=message):
    ClassSubset(part, classes)


def test_a_class_without_examples(prepared_root):
  first = source.open_source('mnist5k', 'train[:1]', str(prepared_root))
  other = (int(first.column('label')[0]) + 1) % 10
  with pytest.raises(errors.UserError, match=f'has no example of {other}'):
    ClassSubset(first, (other,))


@pytest.mark.parametrize('folds', [2, 5, 7, 60])
def test_every_example_is_held_out_once_and_never_trained_on_then(part, folds):
  whole = everything(part)['image'].reshape(60, -1)
  rows = {row.tobytes(): i for i, row in enumerate(whole)}
  assert len(rows) == 60

  def which(examples):
    return [rows[row.tobytes()] for row in everything(examples)['image'].reshape(len(examples), -1)]

  out, sizes = [], set()
  for fold in range(folds):
    held, rest = Fold(part, fold, folds, True), Fold(part, fold, folds, False)
    assert not set(which(held)) & set(which(rest))
    assert len(held) + len(rest) in (60, 59)
    assert len(set(which(rest))) == len(rest)
    out += which(held)
    sizes.add(len(rest))
    np.testing.assert_array_equal(rest.column('label'), everything(rest)['label'])
    assert_same(held.load(), everything(held))
  assert out == list(range(60))
  assert len(sizes) == 1


@pytest.mark.parametrize(
  ('fold', 'folds', 'message'),
  [
    (0, 61, 'the 60 examples of mnist5k .* cannot be cut into folds=61'),
    (0, 1, 'choose from 2 to 60'),
    (5, 5, 'fold=5 must be from 0 to 4'),
  ],
)
def test_wrong_folds(part, fold, folds, message):
  with pytest.raises(errors.UserError, match=message):
    Fold(part, fold, folds, True)


def test_joined_splits_follow_one_another(part, prepared_root):
  other = source.open_source('mnist5k', 'test[:10]', str(prepared_root))
  both = Joined([part, other])
  first, second = everything(part), everything(other)
  wanted = {name: np.concatenate([first[name], second[name]]) for name in first}
  assert_same(everything(both), wanted)
  assert_same(both.load(), wanted)
  mixed = both.read([65, 3, 60])
  np.testing.assert_array_equal(mixed['image'], wanted['image'][[65, 3, 60]])
  assert both.spec.n == 70
  again = source.open_source('mnist5k+mnist5k', 'train[:60]', str(prepared_root))
  assert again.spec.n == 120
  own = source.open_source('mnist5k+mnist5k', 'train[:60]|test[:10]', str(prepared_root))
  assert_same(everything(own), wanted)
  with pytest.raises(errors.UserError, match='has 2 splits for the 3 data sets'):
    source.open_source('mnist5k+mnist5k+mnist5k', 'train|test', str(prepared_root))


def test_what_looks_otherwise_is_not_joined(part, prepared_root):
  table = source.open_source('breast_cancer', 'train', str(prepared_root))
  with pytest.raises(errors.UserError, match=r'mnist5k and breast_cancer cannot be joined: image'):
    Joined([part, table])
