"""The feed for data that fits on the devices: batches are gathered inside the jitted step."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data import order, placement
from data.examples import take
from data.spec import Spec


class Resident:
  """A feed (see `data.feed.Feed`) that holds all data on the devices and gathers batches there.

  The host only sends the position in the data.

  Args:
    arrays: name -> [N, …], every example of the split; or whatever arrays `rows` reads.
    spec: describes an example; spec.n is N.
    batch_size: examples in a global batch, a multiple of the mesh's data * fsdp.
    seed: seed of the order of examples, 0 <= seed < 2**32.
    mesh: axes 'data', 'fsdp', 'tensor'; each device holds all examples and gathers its own rows.
    rows: (arrays, index int32 [B]) -> the examples of these indices; called inside jit.
    block: examples in a block of the order; see `order.example_at`.
    place: puts a tree of arrays on every device of the mesh; `placement.describe` for a feed whose
      `take` returns shapes.
  """

  def __init__(
    self,
    arrays: dict[str, np.ndarray],
    spec: Spec,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    rows: Callable[[Mapping[str, jax.Array], jax.Array], dict[str, jax.Array]] = take,
    block: int = 0,
    place: Callable[[Any, Mesh], Any] = placement.replicate,
  ):
    placement.check_batch(batch_size, mesh)
    self.spec = spec
    self.batch_size = batch_size
    self._mesh = mesh
    self._rows = rows
    self._block = block
    self._place = place
    self._arrays = place(dict(arrays), mesh)
    self._seed = place(np.uint32(seed), mesh)

  def take(self, used: int, steps: int) -> tuple[int, dict[str, Any]]:
    """Returns (k, data) for k of the `steps` steps after `used`; see `data.feed.Feed`."""
    epoch, offset = order.position(used, self.spec.n)
    # `batch` adds to the first offset in uint32, which limits the steps of one call.
    most = max(1, (2**32 - 1 - offset) // self.batch_size)
    start = self._place(np.array([epoch % 2**32, offset], np.uint32), self._mesh)
    return min(steps, most), {'arrays': self._arrays, 'seed': self._seed, 'start': start}

  def batch(self, data: dict[str, Any], i: jax.Array) -> dict[str, jax.Array]:
    """Gathers the i-th batch; for use inside jit.

    Args:
      data: returned by `take`; the caller may replace its `seed`, and add `held_out` int32 [2], the
        first example of a fold that is skipped and its number of examples.
      i: which batch, from 0.
    """
    epoch, offset = data['start']
    offset += jnp.asarray(i, jnp.uint32) * np.uint32(self.batch_size)
    positions = order.batch_offsets(epoch, offset, self.batch_size, self.spec.n)
    epochs, offsets = placement.split_batch(positions, self._mesh)
    index = order.example_at(data['seed'], epochs, offsets, self.spec.n, self._block)
    example = _skip_fold(index, data['held_out']) if 'held_out' in data else index
    rows = self._rows(data['arrays'], example)
    return {**placement.split_batch(rows, self._mesh), 'index': index, 'epoch': epochs}

  def close(self) -> None:
    """Releases the arrays."""
    self._arrays = {}


def _skip_fold(index: jax.Array, held_out: jax.Array) -> jax.Array:
  """Maps indices into the examples outside a fold to indices into all examples, any shape.

  `held_out` is int32 [2], the fold's first example and its number of examples.
  """
  start, size = held_out
  return index + jnp.where(index >= start, size, 0)
