import math
import warnings

import numpy as np
import pytest

from errors import UserError
from metrics.regression import Report


@pytest.fixture(autouse=True)
def nothing_on_the_terminal():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield


def figures(target, prediction, details=False):
  columns = {'target': np.asarray(target, np.float32), 'prediction': np.asarray(prediction)}
  summary = Report().summarise(columns, (), details)
  return {name: value.value for name, value in summary.figures.items()}


def test_by_hand():
  # Errors 1, −1, 0, 2; about their mean of 3 the targets scatter by 4 + 1 + 0 + 9.
  found = figures([1, 2, 3, 6], [[0.0], [3.0], [3.0], [4.0]])
  assert found['rmse'] == pytest.approx(math.sqrt(6 / 4))
  assert found['mae'] == pytest.approx(1)
  assert found['r2'] == pytest.approx(1 - 6 / 14)
  assert set(found) == {'rmse', 'mae', 'r2'}


def test_against_the_formulas():
  rng = np.random.default_rng(0)
  target = rng.normal(5, 3, 200).astype(np.float32)
  prediction = (target + rng.normal(size=200)).astype(np.float32)
  found = figures(target, prediction[:, None], details=True)
  apart = target.astype(np.float64) - prediction
  assert found['rmse'] == pytest.approx(math.sqrt(np.mean(apart**2)))
  assert found['mae'] == pytest.approx(np.mean(np.abs(apart)))
  assert found['r2'] == pytest.approx(1 - np.mean(apart**2) / np.var(target.astype(np.float64)))


def test_the_mean_explains_nothing():
  assert figures([1, 2, 3, 6], [[3.0]] * 4)['r2'] == pytest.approx(0)


@pytest.mark.parametrize('target', [[2, 2, 2], [2]])
def test_equal_targets_have_no_share_explained(target):
  found = figures(target, [[3.0]] * len(target))
  assert found['rmse'] == found['mae'] == 1
  assert math.isnan(found['r2'])


def test_predictions_that_are_not_finite():
  assert all(math.isnan(value) for value in figures([1, 2], [[np.nan], [2.0]]).values())


def test_a_classifier():
  columns = {'label': np.zeros(3, int), 'prediction': np.zeros(3, int)}
  with pytest.raises(UserError, match=r'regression\.Report needs a column "target".*label, pred'):
    Report().summarise(columns, (), False)
