"""Which example comes when: a pure function of (seed, used), the same on the host and inside jit.

The position in the data is one integer, `used`: the examples consumed by the whole job. With n
examples it splits into epoch = used // n and offset = used % n, and every (seed, epoch) has its own
permutation of range(n), computed one offset at a time: nothing is shuffled, stored or restored.

The permutation is two passes of (rotation by a pseudorandom amount, Feistel network). The network
permutes [0, a*b), a*b <= n, whose numbers are pairs in Z_a x Z_b; each round adds a hash of one
half to the other (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Fewer than
sqrt(n) offsets are a*b or more; a pass leaves them unchanged, and the next rotation moves them into
the network's range. So the permutation is exact for every n with a fixed amount of work: no cycle
walking, no loop whose length depends on the data.

Block-wise, for data on slow or remote disks, neighbours in storage are neighbours in time: blocks
of consecutive examples come in a random order, and the examples of each block in a random order of
its own. The last block may be shorter; its place among the others is random too.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # numpy.ndarray or jax.Array

PASSES = 2
ROUNDS = 4
MOST_EXAMPLES = 2**31 - 1  # sums of two offsets fit in uint32, indices in int32


def position(used: int, n: int) -> tuple[int, int]:
  """Splits a position into (epoch, offset) of the next example; Python ints of any size."""
  return divmod(used, n)


def example_at(seed: int | Array, epoch: Array, offset: Array, n: int, block: int = 0) -> Array:
  """Computes the index of the example shown at each (epoch, offset).

  Args:
    seed: 0 <= seed < 2**32, a Python int or a uint32 array.
    epoch: uint32, any shape.
    offset: uint32 below n, a shape that broadcasts with `epoch`.
    n: number of examples, a Python int from 1 to 2**31 - 1.
    block: examples in a block, a Python int; 0 shuffles all examples as one.

  Returns:
    int32 indices below n; for each (seed, epoch) a permutation of range(n) over the offsets. NumPy
    arguments give NumPy arrays, JAX arguments give JAX arrays, with the same numbers.
  """
  xp = _namespace(seed, epoch, offset)
  seed, epoch, offset = (xp.asarray(x, dtype=np.uint32) for x in (seed, epoch, offset))
  with np.errstate(over='ignore'):  # NumPy warns when scalars wrap, which is intended here
    if 0 < block < n:
      return _in_blocks(xp, seed, epoch, offset, n, block).astype(np.int32)
    return _permute(xp, _keys(seed, epoch), offset, n).astype(np.int32)


def batch_offsets(epoch: Array, offset: Array, batch: int, n: int) -> tuple[Array, Array]:
  """Computes (epochs, offsets), both uint32 [batch], of a batch that starts at (epoch, offset).

  `epoch` and `offset` are uint32 scalars. `offset` may exceed n, as long as offset + batch < 2**32;
  a batch may cross any number of epoch ends.
  """
  xp = _namespace(epoch, offset)
  offsets = offset + xp.arange(batch, dtype=np.uint32)
  carry = offsets // np.uint32(n)
  return epoch + carry, offsets - carry * np.uint32(n)


def indices(
  seed: int,
  used: int,
  batch: int,
  n: int,
  process: int = 0,
  processes: int = 1,
  block: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Computes (epochs uint32, indices int32) of one process's share of the batch after `used`.

  Both have shape [batch // processes]; the shares of all processes, concatenated in order, are the
  batch of a single process. `block` is that of `example_at`.
  """
  share = batch // processes
  epoch, offset = position(used + process * share, n)
  epochs, offsets = batch_offsets(np.uint32(epoch % 2**32), np.uint32(offset), share, n)
  return epochs, example_at(seed, epochs, offsets, n, block)


def _namespace(*arrays: Array) -> Any:
  return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def _mix(x: Array) -> Array:
  """A bijection of uint32 with good avalanche (Wellons' lowbias32)."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def _keys(seed: Array, epoch: Array) -> tuple[Array, Array]:
  """Returns two uint32 words for (seed, epoch); the key of round r is first + r * second."""
  first = _mix(_mix(seed + np.uint32(0x9E3779B9)) + epoch)
  second = _mix(_mix(epoch + np.uint32(0x85EBCA6B)) ^ seed)
  return first, second | np.uint32(1)


def _in_blocks(xp: Any, seed: Array, epoch: Array, offset: Array, n: int, block: int) -> Array:
  """The example at each offset of an order in blocks of `block` examples, 0 < block < n."""
  whole, rest = divmod(n, block)
  keys = _keys(seed ^ np.uint32(0xB10C4EED), epoch)
  # The short block, if there is one, comes after `before` of the whole ones.
  before = _mod(_hash(keys, 0, np.uint32(n)), whole + 1) if rest else np.uint32(whole)
  start = before * np.uint32(block)
  is_short = (offset >= start) & (offset - start < np.uint32(rest))
  full = xp.where(offset < start, offset, offset - np.uint32(rest))
  place = full // np.uint32(block)
  # A place that is not used must be in range too.
  place = xp.where(is_short, np.uint32(0), place)
  within = xp.where(is_short, offset - start, full - full // np.uint32(block) * np.uint32(block))
  number = xp.where(is_short, np.uint32(whole), _permute(xp, keys, place, whole))
  inner = _keys(_mix(seed + np.uint32(0x51ED270B)) + number, epoch)
  mixed = _permute(xp, inner, within, block)
  if rest:
    mixed = xp.where(is_short, _permute(xp, inner, _mod(within, rest), rest), mixed)
  return number * np.uint32(block) + mixed


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
  """Permutes [0, rows * columns); the result for a larger x is not used."""
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
