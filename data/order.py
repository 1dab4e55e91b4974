"""Which example comes when: a pure function of (seed, used), the same on the host and inside jit.

The position in the data is one integer, `used`: the examples consumed by the whole job. With n
examples it splits into epoch = used // n and place = used % n, and every (seed, epoch) has its own
permutation of range(n), computed one place at a time: nothing is shuffled, stored or restored.

The permutation is two passes of (rotate by a secret amount, Feistel network). The network works on
[0, a*b) with a*b <= n written as pairs in Z_a x Z_b, each round adding a hash of one half to the
other (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Fewer than sqrt(n) places
lie beyond a*b; a pass leaves them alone and the next rotation brings them in. So it is exact for
every n with a fixed amount of work: no cycle walking, no loop whose length depends on the data.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # numpy.ndarray or jax.Array

PASSES = 2
ROUNDS = 4
MOST_EXAMPLES = 2**31 - 1  # sums of two places stay inside uint32, indices inside int32


def position(used: int, n: int) -> tuple[int, int]:
  """Splits a position into (epoch, place) of the next example; Python ints of any size."""
  return divmod(used, n)


def example_at(seed: int | Array, epoch: Array, place: Array, n: int) -> Array:
  """Computes the index of the example shown at each (epoch, place).

  Args:
    seed: 0 <= seed < 2**32, a Python int or a uint32 array.
    epoch: uint32, any shape.
    place: uint32 below n, a shape that broadcasts with `epoch`.
    n: how many examples there are, a Python int from 1 to 2**31 - 1.

  Returns:
    int32 indices below n; over range(n) of places a permutation for each (seed, epoch). NumPy in
    gives NumPy out, JAX in gives JAX out, with the same numbers.
  """
  xp = _namespace(seed, epoch, place)
  seed, epoch, place = (xp.asarray(x, dtype=np.uint32) for x in (seed, epoch, place))
  with np.errstate(over='ignore'):  # NumPy warns when scalars wrap; here they are meant to
    return _permute(xp, _keys(seed, epoch), place, n).astype(np.int32)


def batch_places(epoch: Array, place: Array, batch: int, n: int) -> tuple[Array, Array]:
  """Computes (epochs, places), both uint32 [batch], of a batch that starts at (epoch, place).

  `epoch` and `place` are uint32 scalars. `place` may exceed n, as long as place + batch < 2**32; a
  batch may cross any number of epoch ends.
  """
  xp = _namespace(epoch, place)
  offsets = place + xp.arange(batch, dtype=np.uint32)
  carry = offsets // np.uint32(n)
  return epoch + carry, offsets - carry * np.uint32(n)


def indices(
  seed: int, used: int, batch: int, n: int, process: int = 0, processes: int = 1
) -> tuple[np.ndarray, np.ndarray]:
  """Computes (epochs uint32, indices int32) of one process's share of the batch after `used`.

  Both have shape [batch // processes]; the shares of all processes, in order, are the batch that
  one process would get.
  """
  share = batch // processes
  epoch, place = position(used + process * share, n)
  epochs, places = batch_places(np.uint32(epoch % 2**32), np.uint32(place), share, n)
  return epochs, example_at(seed, epochs, places, n)


def _namespace(*arrays: Array) -> Any:
  return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def _mix(x: Array) -> Array:
  """A bijection of uint32 with good avalanche (Wellons' lowbias32)."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def _keys(seed: Array, epoch: Array) -> tuple[Array, Array]:
  """Two words for (seed, epoch): the key of round r is first + r * second."""
  first = _mix(_mix(seed + np.uint32(0x9E3779B9)) + epoch)
  second = _mix(_mix(epoch + np.uint32(0x85EBCA6B)) ^ seed)
  return first, second | np.uint32(1)


def _permute(xp: Any, keys: tuple[Array, Array], x: Array, n: int) -> Array:
  rows = min(n, max(2, math.isqrt(n)))
  columns = n // rows
  for step in range(PASSES):
    first = step * (ROUNDS + 1)
    x = _mod(x + _mod(_hash(keys, first, np.uint32(n)), n), n)
    mixed = _feistel(keys, first + 1, x, rows, columns)
    x = mixed if rows * columns == n else xp.where(x < np.uint32(rows * columns), mixed, x)
  return x


def _feistel(keys: tuple[Array, Array], first: int, x: Array, rows: int, columns: int) -> Array:
  """Permutes [0, rows * columns); what it gives for larger x is not used."""
  row = x // np.uint32(columns)
  column = x - row * np.uint32(columns)
  for r in range(first, first + ROUNDS):
    if (r - first) % 2:
      column = _mod(column + (_hash(keys, r, row) >> np.uint32(1)), columns)
    else:
      row = _mod(row + (_hash(keys, r, column) >> np.uint32(1)), rows)
  return row * np.uint32(columns) + column


def _hash(keys: tuple[Array, Array], r: int, x: Array) -> Array:
  first, second = keys
  return _mix(x ^ (first + np.uint32(r) * second))


def _mod(x: Array, m: int) -> Array:
  return x - (x // np.uint32(m)) * np.uint32(m)
