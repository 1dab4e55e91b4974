import math
import subprocess
import sys
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import sklearn.metrics

from errors import UserError
from metrics.classification import Report

NAMES = ['cat', 'dog/wolf', 'owl']

# Five examples of three classes. cat: 2 true, 2 predicted, 1 both. dog/wolf: 2, 2, 1. owl: 1, 1, 1.
HAND = {
  'label': np.array([0, 0, 1, 1, 2]),
  'prediction': np.array([0, 1, 0, 1, 2]),
  'probability': np.array(
    [[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]
  ),
}


@pytest.fixture(autouse=True)
def nothing_on_the_terminal():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield


def random_columns(classes, number, seed):
  """A classifier that is right more often than not; int32 and float32, as a model gives them."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, classes, number)
  logits = rng.normal(size=(number, classes)) + 1.5 * np.eye(classes)[label]
  probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  return {
    'label': label.astype(np.int32),
    'prediction': probability.argmax(axis=1).astype(np.int32),
    'probability': probability.astype(np.float32),
  }


def values(summary):
  return {name: value.value for name, value in summary.figures.items()}


def area_by_pairs(positive, score):
  """Share of the pairs of a positive and a negative in which the positive scores higher."""
  above = score[positive][:, None] - score[~positive]
  return ((above > 0) + 0.5 * (above == 0)).mean()


def test_by_hand():
  summary = Report().summarise(HAND, NAMES, True)
  figures = values(summary)
  assert figures['precision/cat'] == figures['recall/cat'] == figures['f1/cat'] == 0.5
  assert figures['f1/dog/wolf'] == 0.5
  assert figures['f1/owl'] == 1
  assert [figures[f'support/{name}'] for name in NAMES] == [2, 2, 1]
  for name in ('precision', 'recall', 'f1'):
    assert figures[name] == pytest.approx((0.5 + 0.5 + 1) / 3)
  # Pairs: cat (0.6, 0.4) over (0.7, 0.1, 0.2) 4 of 6; dog/wolf (0.2, 0.8) over (0.3, 0.5, 0.2)
  # half a pair and 3, of 6; owl 1.
  assert figures['roc_auc/macro'] == pytest.approx((4 / 6 + 3.5 / 6 + 1) / 3)
  assert summary.tables['confusion_matrix'] == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_precision_and_recall_are_not_exchanged():
  label, prediction = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
  probability = np.eye(2)[prediction]
  figures = values(
    Report().summarise(
      {'label': label, 'prediction': prediction, 'probability': probability}, ['a', 'b'], True
    )
  )
  assert (figures['precision/a'], figures['recall/a'], figures['f1/a']) == (
    1, pytest.approx(1 / 3), 0.5,
  )  # fmt: skip
  assert (figures['precision/b'], figures['recall/b']) == (pytest.approx(1 / 3), 1)
  assert figures['precision'] == figures['recall'] == pytest.approx(2 / 3)


@pytest.mark.parametrize('classes', [2, 7])
def test_counted_one_by_one(classes):
  columns = random_columns(classes, 400, seed=classes)
  label, prediction = columns['label'], columns['prediction']
  summary = Report().summarise(columns, (), True)
  figures = values(summary)
  counts = np.zeros((classes, classes), int)
  for true, predicted in zip(label, prediction):
    counts[true, predicted] += 1
  assert summary.tables['confusion_matrix'] == counts.tolist()
  precision = counts.diagonal() / counts.sum(axis=0)
  recall = counts.diagonal() / counts.sum(axis=1)
  f1 = 2 * precision * recall / (precision + recall)
  for name, expected in (('precision', precision), ('recall', recall), ('f1', f1)):
    np.testing.assert_allclose([figures[f'{name}/{k}'] for k in range(classes)], expected)
    assert figures[name] == pytest.approx(expected.mean())
  areas = [area_by_pairs(label == k, columns['probability'][:, k]) for k in range(classes)]
  if classes == 2:
    assert figures['roc_auc'] == pytest.approx(areas[1])
    assert 'roc_auc/macro' not in figures
  else:
    assert figures['roc_auc/macro'] == pytest.approx(np.mean(areas))
    assert 'roc_auc' not in figures


def test_one_against_the_rest_is_scikit_learns():
  columns = random_columns(4, 300, seed=1)
  found = values(Report().summarise(columns, (), True))['roc_auc/macro']
  expected = sklearn.metrics.roc_auc_score(
    columns['label'], columns['probability'], multi_class='ovr', average='macro'
  )
  assert found == pytest.approx(expected)


def test_absent_class():
  # Class 1 is predicted and never true; class 2 is true and never predicted.
  columns = {
    'label': np.array([0, 0, 0, 2]),
    'prediction': np.array([0, 0, 1, 0]),
    'probability': np.eye(3)[[0, 0, 1, 0]],
  }
  summary = Report().summarise(columns, NAMES, True)
  figures = values(summary)
  for name in ('precision', 'recall', 'f1'):
    assert math.isnan(figures[f'{name}/dog/wolf'])
    assert figures[f'{name}/owl'] == 0
    # 2 of the 3 found, 2 of 3 predicted are right; mean with the owl's 0.
    assert figures[name] == pytest.approx((2 / 3 + 0) / 2)
  assert figures['support/dog/wolf'] == 0
  assert math.isnan(figures['roc_auc/macro'])
  assert summary.tables['confusion_matrix'] == [[2, 1, 0], [0, 0, 0], [1, 0, 0]]
  assert summary.pictures['confusion_matrix'].dtype == np.uint8


@pytest.mark.parametrize('present', [0, 1])
def test_two_classes_of_which_one_is_absent(present):
  prediction = np.array([present, present, 1 - present])
  columns = {
    'label': np.full(3, present),
    'prediction': prediction,
    'probability': np.eye(2)[prediction],
  }
  figures = values(Report().summarise(columns, (), False))
  assert math.isnan(figures['roc_auc'])
  assert figures['recall'] == pytest.approx(2 / 3)


def test_probabilities_that_are_not_finite():
  columns = random_columns(2, 20, seed=0)
  columns['probability'][3] = np.nan
  figures = values(Report().summarise(columns, (), True))
  assert math.isnan(figures['roc_auc'])
  assert math.isfinite(figures['f1'])


def test_probabilities_of_low_precision():
  columns = random_columns(5, 200, seed=3)
  rounded = columns['probability'].astype(ml_dtypes.bfloat16)
  assert np.abs(rounded.astype(np.float64).sum(axis=1) - 1).max() > 1e-3
  found = values(Report().summarise({**columns, 'probability': rounded}, (), True))
  exact = values(Report().summarise(columns, (), True))
  assert found['roc_auc/macro'] == pytest.approx(exact['roc_auc/macro'], abs=1e-2)


@pytest.mark.parametrize(
  'classes, headlines',
  [(2, {'precision', 'recall', 'f1', 'roc_auc'}), (3, {'precision', 'recall', 'f1'})],
)
def test_headlines_alone(classes, headlines):
  columns = random_columns(classes, 50, seed=0)
  short, full = (Report().summarise(columns, (), details) for details in (False, True))
  assert set(short.figures) == headlines == {name for name in full.figures if '/' not in name}
  assert values(short).items() <= values(full).items()
  assert not short.tables and not short.pictures


def test_a_missing_column():
  columns = {'target': np.zeros(3), 'prediction': np.zeros(3, int)}
  with pytest.raises(UserError, match=r'needs a column "label".*prediction, target'):
    Report().summarise(columns, (), False)


def test_without_probabilities_there_is_no_area_under_a_curve():
  columns = {name: HAND[name] for name in ('label', 'prediction')}
  figures, wanted = (values(Report().summarise(c, NAMES, True)) for c in (columns, HAND))
  del wanted['roc_auc/macro']
  assert figures == wanted
  # The names say how many classes there are, and without them the classes that occur.
  more = Report().summarise(columns, [*NAMES, 'yak'], True)
  assert more.figures['support/yak'].value == 0 and math.isnan(more.figures['f1/yak'].value)
  for label, prediction in (([0, 2], [1, 1]), ([0, 1], [2, 0])):
    columns = {'label': np.array(label), 'prediction': np.array(prediction)}
    assert len(Report().summarise(columns, (), True).tables['confusion_matrix']) == 3


@pytest.mark.parametrize('told', [True, False])
def test_places_of_sequences_count_each_and_those_without_a_label_not_at_all(told):
  flat = random_columns(4, 60, seed=2)
  if not told:
    del flat['probability']
  sequences = {name: column.reshape(12, 5, *column.shape[1:]) for name, column in flat.items()}
  padded = {
    name: np.pad(x, [(0, 0), (0, 2), *[(0, 0)] * (x.ndim - 2)]) for name, x in sequences.items()
  }
  padded['label'][:, 5:] = -1
  padded['prediction'][:, 5:] = 3
  names = ['a', 'b', 'c', 'd']
  found, wanted = (Report().summarise(c, names, True) for c in (padded, flat))
  assert values(found) == pytest.approx(values(wanted))
  assert found.tables == wanted.tables


def test_start_up_does_not_pay_for_scikit_learn_and_matplotlib():
  loads = (
    'import sys; from metrics import calibration, charts, classification, groups, regression; '
    'calibration.Calibration(), classification.Report(), groups.Gaps(), regression.Report(); '
    'assert not {"sklearn", "scipy", "matplotlib"} & set(sys.modules), sorted(sys.modules)'
  )
  root = Path(__file__).parents[2]
  done = subprocess.run([sys.executable, '-c', loads], cwd=root, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
