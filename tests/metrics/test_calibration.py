import json
import math
import warnings

import numpy as np
import pytest
import sklearn.metrics

from errors import UserError
from metrics.calibration import Calibration, make_bins


@pytest.fixture(autouse=True)
def nothing_on_the_terminal():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield


def columns_of(confidence, correct):
  """Two classes, of which 0 is always predicted."""
  confidence = np.asarray(confidence, np.float64)
  label = np.where(correct, 0, 1)
  return {'label': label, 'probability': np.stack([confidence, 1 - confidence], axis=1)}


def random_columns(classes, number, seed):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, classes, number)
  logits = 2 * rng.normal(size=(number, classes)) + 1.5 * np.eye(classes)[label]
  probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  return {'label': label.astype(np.int32), 'probability': probability.astype(np.float32)}


def values(summary):
  return {name: value.value for name, value in summary.figures.items()}


def test_by_hand():
  # Of four bins, two in use. (0.5, 0.75]: confidences 0.6, 0.7, one right: |0.5 − 0.65| = 0.15.
  # (0.75, 1]: 0.8, 0.9, 1.0, all right: |1 − 0.9| = 0.1.
  columns = columns_of([0.6, 0.7, 0.8, 0.9, 1.0], [True, False, True, True, True])
  summary = Calibration(bins=4).summarise(columns, (), True)
  figures = values(summary)
  assert figures['ece'] == pytest.approx((2 * 0.15 + 3 * 0.1) / 5)
  assert figures['calibration/maximum'] == pytest.approx(0.15)
  # Both classes' squares: 2 · (0.4², 0.7², 0.2², 0.1², 0²).
  assert figures['calibration/brier'] == pytest.approx(2 * (0.16 + 0.49 + 0.04 + 0.01) / 5)
  table = summary.tables['reliability']
  assert [row['count'] for row in table] == [0, 0, 2, 3]
  assert [(row['from'], row['to']) for row in table] == [
    (0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1),
  ]  # fmt: skip
  assert table[0]['confidence'] is None and table[0]['accuracy'] is None
  assert table[2]['confidence'] == pytest.approx(0.65) and table[2]['accuracy'] == 0.5
  assert json.loads(json.dumps(summary.tables, allow_nan=False)) == summary.tables


@pytest.mark.parametrize('number', [1, 10, 15])
def test_errors_by_a_loop_over_bins(number):
  columns = random_columns(5, 700, seed=number)
  probability = columns['probability'].astype(np.float64)
  confidence = probability.max(axis=1)
  correct = probability.argmax(axis=1) == columns['label']
  expected, largest = 0.0, 0.0
  for m in range(1, number + 1):
    inside = (confidence > (m - 1) / number) & (confidence <= m / number)
    if inside.any():
      apart = abs(correct[inside].mean() - confidence[inside].mean())
      expected += inside.sum() / len(confidence) * apart
      largest = max(largest, apart)
  figures = values(Calibration(bins=number).summarise(columns, (), True))
  assert figures['ece'] == pytest.approx(expected, rel=1e-9)
  assert figures['calibration/maximum'] == pytest.approx(largest, rel=1e-9)


def test_brier_score_is_scikit_learns():
  columns = random_columns(4, 300, seed=0)
  columns['label'][columns['label'] == 2] = 1  # an absent class
  found = values(Calibration().summarise(columns, (), True))['calibration/brier']
  expected = sklearn.metrics.brier_score_loss(
    columns['label'], columns['probability'], labels=range(4), scale_by_half=False
  )
  assert found == pytest.approx(expected, rel=1e-5)


def test_an_edge_belongs_to_the_bin_below():
  bins = make_bins(np.array([0.0, 0.2, 0.2000001, 0.6, 1.0]), np.ones(5, bool), 5)
  assert bins.count.tolist() == [2, 1, 1, 0, 1]


def test_a_calibrated_model():
  # Right exactly as often as it is confident.
  columns = columns_of([0.75] * 8 + [1.0] * 4, [True] * 6 + [False] * 2 + [True] * 4)
  assert values(Calibration().summarise(columns, (), True))['ece'] == pytest.approx(0)


def test_headlines_alone():
  columns = random_columns(3, 50, seed=0)
  short, full = (Calibration().summarise(columns, (), details) for details in (False, True))
  assert set(short.figures) == {'ece'} == {name for name in full.figures if '/' not in name}
  assert short.figures['ece'] == full.figures['ece']
  assert not short.tables and not short.pictures
  assert full.pictures['reliability'].dtype == np.uint8


def test_probabilities_that_are_not_finite():
  columns = random_columns(3, 50, seed=0)
  columns['probability'][7] = np.nan
  summary = Calibration().summarise(columns, (), True)
  assert all(math.isnan(value) for value in values(summary).values())
  json.dumps(summary.tables, allow_nan=False)


def test_what_it_refuses():
  with pytest.raises(UserError, match=r'calibration\.Calibration needs a column "probability"'):
    Calibration().summarise({'label': np.zeros(3, int)}, (), False)
