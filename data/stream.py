"""The feed for data too large for the devices: read and decoded ahead of the step by Grain."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from data import order, placement
from data.examples import Examples

_THREADS = 2  # decoding holds Python's lock most of the time, so more of them gain nothing
_AHEAD = 4  # batches; Grain's own default would hold 500
_AHEAD_PER_WORKER = 2
_STEPS = 2**40  # more batches than any run has


class Stream:
  """A feed (see data/feed.py) that holds no more than a few batches in memory.

  Grain is used for threads, worker processes and reading ahead. Which examples a batch holds is
  computed from `used` alone, so it does not depend on any of those, and nothing has to be saved.

  Args:
    source: where examples are read.
    batch_size: examples in a global batch, a multiple of the mesh's data * fsdp.
    seed: of the order of examples, 0 <= seed < 2**32.
    mesh: axes 'data', 'fsdp', 'tensor'; each process reads the rows of its own devices.
    workers: processes that decode; 0 means threads in this process.
    used: where reading ahead starts.
  """

  def __init__(
    self, source: Examples, batch_size: int, seed: int, mesh: Mesh, workers: int, used: int
  ):
    placement.check_batch(batch_size, mesh)
    self.spec = source.spec
    self.batch_size = batch_size
    self._source = source
    self._seed = seed
    self._mesh = mesh
    self._workers = workers
    self._rows = placement.local_rows(mesh, batch_size)
    self._used = used
    self._iterator: Iterator | None = None
    self._start(used)

  def take(self, used: int, steps: int) -> tuple[int, dict[str, jax.Array]]:
    """Takes (1, the batch after `used` as arrays [1, B, …]); a jump of `used` starts anew."""
    del steps
    if self._iterator is None or used != self._used:
      self._start(used)
    batch = next(self._iterator)
    self._used = used + self.batch_size
    return 1, placement.stack(batch, self._mesh, self.batch_size)

  def batch(self, taken: dict[str, jax.Array], i: jax.Array) -> dict[str, jax.Array]:
    """Picks the i-th batch of what was taken; see `data.feed.Feed`."""
    batch = {
      name: jax.lax.dynamic_index_in_dim(array, i, keepdims=False) for name, array in taken.items()
    }
    return placement.split_batch(batch, self._mesh)

  def close(self) -> None:
    """Stops reading ahead and ends the worker processes."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def _start(self, used: int) -> None:
    self.close()
    read = _Reader(self._source, self._seed, used, self.batch_size, self._rows)
    self._used = used
    self._iterator = _read_ahead(read, self._workers)


class _Reader(NamedTuple):
  """Reads batch k, counted from `used`: a plain tuple, so that it can go to worker processes."""

  source: Examples
  seed: int
  used: int
  batch_size: int
  rows: range

  def __call__(self, k: int) -> dict[str, np.ndarray]:
    first = self.used + k * self.batch_size + self.rows.start
    epochs, index = order.indices(self.seed, first, len(self.rows), self.source.spec.n)
    return {**self.source.read(index), 'index': index, 'epoch': epochs}


def _read_ahead(read: _Reader, workers: int) -> Any:
  import grain

  batches = grain.MapDataset.range(_STEPS).map(read)
  options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
  if not workers:
    return iter(batches.to_iter_dataset(options))
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD_PER_WORKER)
  processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD_PER_WORKER)
  return iter(batches.to_iter_dataset(options).mp_prefetch(processes))
