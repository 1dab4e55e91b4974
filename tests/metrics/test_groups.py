import math

import numpy as np
import pytest

from errors import UserError
from metrics.groups import Gaps


def columns_of(groups, name='region'):
  """Columns with groups of (value, examples, examples right), shuffled."""
  values = np.concatenate([np.full(number, value) for value, number, _ in groups])
  correct = np.concatenate([np.arange(number) < right for _, number, right in groups])
  order = np.random.default_rng(0).permutation(len(values))
  return {
    'label': np.zeros(len(values), np.int32),
    'prediction': np.where(correct, 0, 1)[order],
    'probability': np.zeros((len(values), 2), np.float32),
    'loss': np.zeros(len(values)),
    name: values[order],
  }


def test_accuracy_per_value_by_hand():
  columns = columns_of([(-1, 10, 5), (4, 8, 6), (7, 5, 4)])
  figures = Gaps(by=('region',)).summarise(columns, ['a', 'b'], True).figures
  assert figures['accuracy/region/-1'].value == 0.5
  assert figures['accuracy/region/4'].value == 0.75
  assert figures['accuracy/region/7'].value == 0.8
  assert figures['accuracy_gap_region'].value == pytest.approx(0.3)
  assert set(figures) == {
    'accuracy_gap_region', 'accuracy/region/-1', 'accuracy/region/4', 'accuracy/region/7',
  }  # fmt: skip


def test_classes_have_their_names():
  columns = {'label': np.array([0, 0, 2, 2]), 'prediction': np.array([0, 1, 2, 2])}
  figures = Gaps().summarise(columns, ['a', 'b', 'c/d'], True).figures
  assert set(figures) == {'accuracy_gap_label', 'accuracy/label/a', 'accuracy/label/c/d'}
  assert figures['accuracy/label/a'].value == 0.5
  assert figures['accuracy/label/c/d'].value == 1
  assert 'accuracy/label/2' in Gaps().summarise(columns, (), True).figures


def test_intervals_are_those_of_rows_drawn_again():
  groups = [(0, 60, 30), (1, 200, 170), (2, 30, 24)]
  columns = columns_of(groups)
  figures = Gaps(by=('region',), resamples=20_000).summarise(columns, (), True).figures
  correct = columns['prediction'] == columns['label']
  rng = np.random.default_rng(1)
  resampled = []
  for value, number, _ in groups:
    rows = correct[columns['region'] == value]
    resampled.append(rows[rng.integers(0, number, (20_000, number))].mean(axis=1))
  # Percentiles lie on a grid of 1 / n and may fall on either side of a step.
  for (value, number, _), accuracy in zip(groups, resampled):
    found = figures[f'accuracy/region/{value}'].interval
    np.testing.assert_allclose(found, np.percentile(accuracy, (2.5, 97.5)), atol=1.01 / number)
  # Best is 1, worst is 0.
  gap = resampled[1] - resampled[0]
  found = figures['accuracy_gap_region'].interval
  np.testing.assert_allclose(found, np.percentile(gap, (2.5, 97.5)), atol=0.01)


def test_interval_of_a_large_group_is_the_normal_one():
  columns = columns_of([(0, 40_000, 30_000), (1, 40_000, 10_000)])
  figures = Gaps(by=('region',), resamples=20_000).summarise(columns, (), True).figures
  error = math.sqrt(0.75 * 0.25 / 40_000)
  low, high = figures['accuracy/region/0'].interval
  assert (low, high) == pytest.approx((0.75 - 1.96 * error, 0.75 + 1.96 * error), abs=0.1 * error)
  low, high = figures['accuracy_gap_region'].interval
  half = 1.96 * math.sqrt(2) * error
  assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * error)


def test_interval_of_the_gap_holds_the_truth_about_as_often_as_it_says():
  rng, held, truth = np.random.default_rng(0), 0, 0.9 - 0.7
  for _ in range(300):
    rights = rng.binomial(100, (0.9, 0.7, 0.8))
    columns = columns_of([(i, 100, right) for i, right in enumerate(rights)])
    low, high = Gaps(('region',), 200).summarise(columns, (), False).figures[
      'accuracy_gap_region'
    ].interval  # fmt: skip
    held += low <= truth <= high
  # 285 expected, with a standard deviation of 3.8; 200 resamples cost a little.
  assert 270 <= held <= 297


def test_a_column_does_not_depend_on_the_others_and_a_seed_matters():
  columns = {**columns_of([(0, 5000, 3000), (1, 5000, 4000)]), 'site': np.arange(10_000) % 3}
  columns['flag'] = np.arange(10_000) % 2 == 0
  alone = Gaps(by=('site',)).summarise(columns, (), True).figures
  both = Gaps(by=('region', 'site', 'flag')).summarise(columns, (), True).figures
  assert alone.items() <= both.items()
  assert 'accuracy/flag/True' in both
  other = Gaps(by=('site',), seed=1).summarise(columns, (), True).figures
  assert other['accuracy_gap_site'].value == alone['accuracy_gap_site'].value
  assert other['accuracy_gap_site'].interval != alone['accuracy_gap_site'].interval


def test_one_group_has_no_gap():
  value, interval = (
    Gaps().summarise(columns_of([(0, 20, 10)]), (), False).figures['accuracy_gap_label']
  )
  assert value == 0 and interval == (0, 0)


def test_headlines_alone():
  columns = columns_of([(0, 20, 10), (1, 20, 15)])
  summary = Gaps(by=('region', 'label')).summarise(columns, (), False)
  assert list(summary.figures) == ['accuracy_gap_region', 'accuracy_gap_label']
  full = Gaps(by=('region', 'label')).summarise(columns, (), True).figures
  assert summary.figures.items() <= full.items()


@pytest.mark.parametrize('name', ['regoin', 'loss', 'probability'])
def test_a_column_that_is_not_there_or_holds_no_integers(name):
  columns = columns_of([(0, 20, 10), (1, 20, 15)])
  with pytest.raises(UserError, match=f'"{name}".*there are: label, prediction, region$'):
    Gaps(by=('label', name)).summarise(columns, (), False)


def test_no_columns():
  with pytest.raises(ValueError, match=r'by=\(\) must name a column'):
    Gaps(by=())


def test_a_model_without_predictions():
  with pytest.raises(UserError, match=r'groups\.Gaps needs a column "prediction"'):
    Gaps().summarise({'label': np.zeros(3, int)}, (), False)
