"""A random subset of rows that depends on their numbers alone."""

import numpy as np
import pytest

from metrics import kept_rows
from metrics.base import FeatureBatch


def batch(numbers):
  numbers = np.asarray(numbers)
  return FeatureBatch(np.float32(numbers)[:, None] * [1, -1], numbers)


def kept(*parts, most=7):
  state = kept_rows.empty()
  for part in parts:
    state = kept_rows.update(state, batch(part), most)
  return state


@pytest.mark.parametrize('seed', range(3))
def test_neither_order_nor_parts_matter(seed):
  numbers = np.random.default_rng(seed).permutation(100)
  expected = kept(range(100))
  for state in (
    kept(numbers),
    kept(*np.array_split(numbers, 13)),
    kept_rows.merge(kept(numbers[:3]), kept(numbers[3:]), 7),
    kept_rows.merge(kept(numbers), kept_rows.empty(), 7),
    kept_rows.merge(kept_rows.empty(), kept(numbers), 7),
  ):
    np.testing.assert_array_equal(state.features, expected.features)
    np.testing.assert_array_equal(state.priorities, expected.priorities)
    assert state.features.dtype == np.float32


def test_all_rows_where_there_are_few():
  assert sorted(kept([5, 3, 4]).features[:, 0]) == [3, 4, 5]
  assert kept_rows.empty().features.shape == (0, 0)
  assert kept([], [2]).features.tolist() == [[2, -2]]


def test_the_rows_kept_are_spread_evenly():
  # 2,000 of 20,000: the mean of their numbers has a standard deviation of 122.
  numbers = kept(np.arange(20_000), most=2000).features[:, 0]
  assert len({*numbers}) == 2000
  assert abs(numbers.mean() - 10_000) < 400
  assert len({*kept_rows.priorities(np.arange(20_000))}) == 20_000
