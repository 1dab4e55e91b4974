"""Positions and pools against values worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np

from models.pooling import POOLS
from models.positions import KINDS, changes, restarting, rotate, sinusoids


def test_positions_restart_where_the_segment_changes():
  segments = jnp.array([[3, 3, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 4]])
  assert restarting(segments).tolist() == [
    [0, 1, 0, 1, 2, 0],
    [0, 1, 2, 3, 4, 5],
    [0, 0, 0, 0, 0, 1],
  ]
  assert changes(segments)[0].tolist() == [True, False, True, False, False, True]


def test_sinusoids_by_hand():
  """Vaswani et al. 2017, section 3.5, with four dimensions: rates 1 and 1/100."""
  got = sinusoids(jnp.array([0, 1, 50]), 4)
  wanted = [
    [0, 1, 0, 1],
    [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)],
    [math.sin(50), math.cos(50), math.sin(0.5), math.cos(0.5)],
  ]
  np.testing.assert_allclose(got, wanted, atol=1e-5)
  np.testing.assert_allclose(sinusoids(jnp.array(50), 4), wanted[2], atol=1e-5)
  assert sinusoids(jnp.array([[1, 2]]), 3).shape == (1, 2, 3)


def rotary(size):
  return KINDS['rotary'](context=0, width=0, head_size=size, embedding_init=None)


def turned(vector, position):
  angles = rotary(len(vector)).angles(jnp.asarray(position))
  return rotate(vector[None], angles)[0]


def test_rotation_by_hand():
  """Pairs (0, 2) and (1, 3) of four, turned by the position and a hundredth of it."""
  got = turned(jnp.array([1.0, 0.0, 0.0, 2.0]), 3)
  wanted = [math.cos(3), -2 * math.sin(0.03), math.sin(3), 2 * math.cos(0.03)]
  np.testing.assert_allclose(got, wanted, atol=1e-6)
  assert rotate(jnp.ones((1, 4)), None).tolist() == [[1, 1, 1, 1]]
  half = rotate(jnp.ones((1, 4), jnp.bfloat16), rotary(4).angles(jnp.array(1)))
  assert half.dtype == jnp.bfloat16


def test_rotated_products_depend_on_the_distance_alone():
  rng = np.random.default_rng(0)
  query, key = jnp.asarray(rng.standard_normal((2, 8)), jnp.float32)
  product = lambda p, s: float(turned(query, p) @ turned(key, s))  # noqa: E731
  np.testing.assert_allclose(product(7, 4), product(103, 100), atol=1e-4)
  np.testing.assert_allclose(product(2, 9), product(0, 7), atol=1e-4)
  assert abs(product(7, 4) - product(4, 7)) > 1e-2
  assert abs(product(7, 4) - product(7, 5)) > 1e-2


def test_pools_by_hand():
  x = jnp.arange(12.0).reshape(2, 3, 2)
  lengths = jnp.array([2, 0])
  assert POOLS['none'](x, lengths).tolist() == x.tolist()
  assert POOLS['first'](x, lengths).tolist() == [[0, 1], [6, 7]]
  assert POOLS['last'](x, lengths).tolist() == [[2, 3], [6, 7]]
  assert POOLS['last'](x, None).tolist() == [[4, 5], [10, 11]]
  assert POOLS['mean'](x, lengths).tolist() == [[1, 2], [0, 0]]
  assert POOLS['mean'](x, None).tolist() == [[2, 3], [8, 9]]
  spoiled = x.at[0, 2].set(jnp.nan)
  assert POOLS['mean'](spoiled, lengths)[0].tolist() == [1, 2]
