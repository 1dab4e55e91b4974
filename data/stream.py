"""The feed for data that is too large for the devices: Grain reads and decodes it ahead of use."""

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
  """A feed (see `data.feed.Feed`) that holds only a few batches in memory.

  Grain provides threads, worker processes and reading ahead. The examples of a batch are computed
  from `used`, so they do not depend on any of those, and no state of the stream has to be saved.

  Args:
    source: the examples.
    batch_size: examples in a global batch, a multiple of the mesh's data * fsdp.
    seed: seed of the order of examples, 0 <= seed < 2**32.
    mesh: axes 'data', 'fsdp', 'tensor'; each process reads the rows of its own devices.
    workers: processes that decode; 0 means threads in this process.
    used: the position that reading ahead starts from.
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
    """Returns (1, the batch after `used` as arrays [1, B, …]); a jump of `used` restarts Grain."""
    del steps
    if self._iterator is None or used != self._used:
      self._start(used)
    batch = next(self._iterator)
    self._used = used + self.batch_size
    return 1, placement.stack(batch, self._mesh, self.batch_size)

  def batch(self, data: dict[str, jax.Array], i: jax.Array) -> dict[str, jax.Array]:
    """Returns the i-th batch of the data that `take` returned; see `data.feed.Feed`."""
    return placement.take_from_stack(data, i, self._mesh)

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
  """Reads the k-th batch after `used`; a tuple, so that it can be pickled for worker processes."""

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
