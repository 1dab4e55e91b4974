"""Distances by blocks are those of all pairs."""

import numpy as np
import pytest

from metrics import distances
from tests.metrics.sample_states import normal


@pytest.fixture(params=[2**23, 70], ids=['one block', 'many blocks'])
def block(request, monkeypatch):
  monkeypatch.setattr(distances, '_BLOCK', request.param)


def by_pairs(a, b):
  return ((a[:, None] - b[None]) ** 2).sum(-1)


def test_all_pairs(block):
  # Far from 0, where digits are lost unless the centre is moved.
  first, second = normal(0, 23, 5, mean=1000.0), normal(1, 31, 5, mean=1000.0)
  a, b = distances.points(first, second)
  found = np.zeros((23, 31))
  for some, squared in distances.blocks(a, b):
    found[some] = squared
  np.testing.assert_allclose(found, by_pairs(first, second), rtol=1e-10)


def test_neighbours(block):
  first, second = normal(0, 23, 5), normal(1, 31, 5)
  a, b = distances.points(first, second)
  squared, which = distances.nearest(a, b)
  np.testing.assert_array_equal(which, by_pairs(first, second).argmin(1))
  np.testing.assert_allclose(squared, by_pairs(first, second).min(1), rtol=1e-10)
  for k in (1, 4, 30):
    expected = np.sort(by_pairs(second, second), axis=1)[:, k]  # 0 is the row itself.
    np.testing.assert_allclose(distances.to_neighbour(b, k), expected, rtol=1e-10)
    chosen = np.array([30, 2, 2, 11])
    some = distances.to_neighbour(b, k, chosen)
    np.testing.assert_allclose(some, expected[chosen], rtol=1e-10)


def test_copies_are_at_no_distance():
  features = np.repeat(normal(0, 9, 5), 2, axis=0)
  (found,) = distances.points(features)
  assert (distances.to_neighbour(found, 1) <= distances.tolerance(found)).all()
  assert (distances.to_neighbour(found, 2) > distances.tolerance(found)).all()
  assert (distances.nearest(found, found)[0] == 0).all()
