"""The feed for data that the devices can hold: indexed there, inside the jitted step."""

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
  """A feed (see `data.feed.Feed`) whose batches are gathered on the devices; the host only counts.

  Args:
    arrays: name -> [N, …], every example of the split; or whatever `rows` cuts them out of.
    spec: what an example looks like; spec.n is N.
    batch_size: examples in a global batch, a multiple of the mesh's data * fsdp.
    seed: of the order of examples, 0 <= seed < 2**32.
    mesh: axes 'data', 'fsdp', 'tensor'; each device holds all examples and gathers its own rows.
    rows: (arrays, index int32 [B]) -> the examples of these indices; called inside jit.
  """

  def __init__(
    self,
    arrays: dict[str, np.ndarray],
    spec: Spec,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    rows: Callable[[Mapping[str, jax.Array], jax.Array], dict[str, jax.Array]] = take,
  ):
    placement.check_batch(batch_size, mesh)
    self.spec = spec
    self.batch_size = batch_size
    self._mesh = mesh
    self._rows = rows
    self._arrays = placement.replicate(dict(arrays), mesh)
    self._seed = placement.replicate(np.uint32(seed), mesh)

  def take(self, used: int, steps: int) -> tuple[int, dict[str, Any]]:
    """Takes (how many of the steps this hands out, what `batch` needs for them)."""
    epoch, place = order.position(used, self.spec.n)
    # `batch` counts places from the first one on in uint32, so a very long take is cut.
    most = max(1, (2**32 - 1 - place) // self.batch_size)
    start = placement.replicate(np.array([epoch % 2**32, place], np.uint32), self._mesh)
    return min(steps, most), {'arrays': self._arrays, 'seed': self._seed, 'start': start}

  def batch(self, taken: dict[str, Any], i: jax.Array) -> dict[str, jax.Array]:
    """Inside jit: returns the i-th batch of what was taken.

    Args:
      taken: of `take`; the caller may replace its `seed`, and give `held_out` int32 [2], the first
        example of a fold that is skipped and how many it has.
      i: which batch, from 0.
    """
    epoch, place = taken['start']
    place += jnp.asarray(i, jnp.uint32) * np.uint32(self.batch_size)
    positions = order.batch_places(epoch, place, self.batch_size, self.spec.n)
    epochs, places = placement.split_batch(positions, self._mesh)
    index = order.example_at(taken['seed'], epochs, places, self.spec.n)
    example = outside(index, taken['held_out']) if 'held_out' in taken else index
    rows = self._rows(taken['arrays'], example)
    return {**placement.split_batch(rows, self._mesh), 'index': index, 'epoch': epochs}

  def close(self) -> None:
    """Lets go of the arrays."""
    self._arrays = {}


def outside(index: jax.Array, held_out: jax.Array) -> jax.Array:
  """Returns the example that is number `index` of those outside a fold, of the same shape.

  `held_out` is int32 [2], the fold's first example and its number of examples.
  """
  start, size = held_out
  return index + jnp.where(index >= start, size, 0)
