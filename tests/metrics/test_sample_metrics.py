"""What holds for every metric of samples: states merge, are stored, and take what is not finite."""

import functools
import math
import warnings

import numpy as np
import pytest

from data import arrays
from engine.evaluators import jackknife
from metrics.base import Fewest
from metrics.classes_hit import ClassesHit
from metrics.duplicates import Duplicates
from metrics.frechet import Frechet
from metrics.inception_score import InceptionScore
from metrics.kid import KID
from metrics.memorisation import Memorisation
from metrics.mind import MIND
from metrics.prdc import PRDC
from metrics.vendi import Vendi
from tests.metrics.sample_states import normal, softmax, state_of

METRICS = [
  ClassesHit(),
  Duplicates(most=60, quantile=0.1),
  Frechet(),
  InceptionScore(),
  KID(most=60),
  Memorisation(most=60, quantile=0.1),
  MIND(most=60, projections=9, seed=0),
  PRDC(most=60, k=3),
  Vendi(),
]
by_name = pytest.mark.parametrize('metric', METRICS, ids=lambda metric: type(metric).__name__)


def values_of(metric, seed, number=80):
  logits = normal(seed, number, 5)
  return softmax(logits) if metric.needs_probabilities else logits


def compared(metric, samples, reference=None):
  """The figures of a state of samples."""
  if reference is None:
    reference = state_of(metric, values_of(metric, 1))
  held_out = state_of(metric, values_of(metric, 2)) if metric.needs_held_out else None
  return metric.compare(reference, samples, held_out)


@by_name
@pytest.mark.parametrize('seed', range(3))
def test_parts_in_any_order_give_the_whole(metric, seed):
  values = values_of(metric, 0)
  expected = compared(metric, state_of(metric, values))
  assert np.isfinite(expected).all()
  numbers = np.random.default_rng(seed).permutation(80)
  parts = [*np.array_split(numbers, 7), np.zeros(0, int)]
  states = [state_of(metric, values, [part]) for part in parts]
  for state in (
    state_of(metric, values, parts),
    functools.reduce(metric.merge, states),
    functools.reduce(metric.merge, reversed(states)),
    metric.merge(metric.empty(), state_of(metric, values)),
    metric.merge(state_of(metric, values), metric.empty()),
  ):
    np.testing.assert_allclose(compared(metric, state), expected, rtol=1e-9)


@by_name
def test_every_sample_counts(metric):
  """Samples that are the reference itself, and twice each; then one of them is another."""
  values = np.repeat(values_of(metric, 0, 25), 2, axis=0)
  reference = state_of(metric, values)
  expected = compared(metric, reference, reference)
  for row in (0, 17, 49):
    others = np.roll(values, 1, axis=1) if metric.needs_probabilities else values + 20
    changed = np.where(np.arange(50)[:, None] == row, others, values)
    assert compared(metric, state_of(metric, changed), reference) != expected


@by_name
def test_a_state_is_stored_and_read(metric, tmp_path):
  reference = state_of(metric, values_of(metric, 1))
  fields = {name: np.asarray(value) for name, value in reference._asdict().items()}
  arrays.write(tmp_path / 'state', fields)
  read = type(metric.empty())(**arrays.read(tmp_path / 'state', metric.empty()._fields))
  samples = state_of(metric, values_of(metric, 0))
  assert compared(metric, samples, read) == compared(metric, samples, reference)
  # And as samples, which is merged.
  again = compared(metric, metric.merge(read, metric.empty()))
  assert again == compared(metric, reference)


@by_name
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_what_is_not_finite_makes_the_figures_nan(metric, value):
  broken = np.array(values_of(metric, 0))
  broken[3, 2] = value
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    found = compared(metric, state_of(metric, broken))
  assert np.isnan(found).all() and len(found) == max(1, len(metric.figures))


@by_name
def test_intervals_by_leaving_out_groups(metric):
  values = values_of(metric, 0)
  groups = [state_of(metric, values, [np.arange(group, 80, 8)]) for group in range(8)]
  (value, *_) = compared(metric, functools.reduce(metric.merge, groups))
  without = [compared(metric, state)[0] for state in jackknife.leave_one_out(groups, metric.merge)]
  direct = compared(metric, state_of(metric, values[np.arange(80) % 8 != 0]))[0]
  if not hasattr(metric, 'most'):  # Else other rows take the places of those left out.
    assert without[0] == pytest.approx(direct)
  low, high = jackknife.interval(value, np.array(without))
  assert low <= value <= high and high - low < 10 * abs(value) + 1


@by_name
def test_the_fewest_rows_are_enough(metric):
  fewest = metric.fewest(5)
  reference = state_of(metric, values_of(metric, 1, fewest.examples))
  held_out = state_of(metric, values_of(metric, 2, fewest.examples))
  samples = state_of(metric, values_of(metric, 0, fewest.samples))
  found = metric.compare(reference, samples, held_out if metric.needs_held_out else None)
  # Of one example the classes are not comparable.
  assert np.isfinite(found[:1]).all()


def test_how_many_rows_are_needed():
  found = {type(metric).__name__: metric.fewest(128) for metric in METRICS}
  assert found == {
    'ClassesHit': Fewest(1, 1),
    'Duplicates': Fewest(10, 10),
    'Frechet': Fewest(129, 129),
    'InceptionScore': Fewest(1, 1),
    'KID': Fewest(2, 2),
    'Memorisation': Fewest(10, 1),
    'MIND': Fewest(2, 2),
    'PRDC': Fewest(4, 4),
    'Vendi': Fewest(1, 1),
  }


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (lambda: PRDC(most=3, k=3), 'most=3 must be above k=3'),
    (lambda: Duplicates(most=99, quantile=0.01), 'most=99 must be at least 100'),
    (lambda: Memorisation(most=99, quantile=0.01), 'most=99 must be at least 100'),
  ],
)
def test_too_few_rows_kept_are_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make()


@pytest.mark.parametrize(
  'metric',
  [metric for metric in METRICS if hasattr(metric, 'most')],
  ids=lambda m: type(m).__name__,
)
def test_no_more_rows_are_kept_than_asked_for(metric):
  assert len(state_of(metric, values_of(metric, 0, 80)).features) == 60
