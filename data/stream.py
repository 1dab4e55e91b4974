"""The feed for data that is too large for the devices: Grain reads and decodes it ahead of use."""

import math
import re
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

import errors
from data import order, placement
from data.examples import Examples
from data.own.progress import say
from data.spec import Spec

# Batches that one call of `take` hands over, stacked, and their bytes: without a stack every step
# of a small model would be a dispatch of its own. A larger batch comes alone.
_MOST_STACKED, _STACK_BYTES = 16, 2**23
_THREADS = 2  # decoding holds Python's lock most of the time, so more of them gain nothing
_AHEAD = 4  # batches; Grain's own default would hold 500
_AHEAD_PER_WORKER = 2
_MOST_DEATHS = 3  # of worker processes before a batch that is started anew for
_STEPS = 2**40  # more batches than any run has


class Stream:
  """A feed (see `data.feed.Feed`) that holds a few batches in memory, or a few MiB of small ones.

  Grain provides threads, worker processes and reading ahead. The examples of a batch are computed
  from `used`, so they do not depend on any of those, and no state of the stream has to be saved.

  Args:
    source: the examples.
    batch_size: examples in a global batch, a multiple of the mesh's data * fsdp.
    seed: seed of the order of examples, 0 <= seed < 2**32.
    mesh: axes 'data', 'fsdp', 'tensor'; each process reads the rows of its own devices.
    workers: processes that decode; 0 means threads in this process.
    used: the position that reading ahead starts from.
    block: examples in a block of the order; see `order.example_at`.
    restart: whether worker processes that die are started anew, which changes no batch.

  Attributes:
    stacked: most steps of one call of `take`. The arrays that it returns have room for as many
      batches, so that one compiled program takes any number of steps.
  """

  def __init__(
    self,
    source: Examples,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    workers: int,
    used: int,
    block: int = 0,
    restart: bool = False,
  ):
    placement.check_batch(batch_size, mesh)
    self.spec = source.spec
    self.batch_size = batch_size
    self._source = source
    self._seed = seed
    self._mesh = mesh
    self._block = block
    self._workers = workers
    self._rows = placement.local_rows(mesh, batch_size)
    self._restart = restart
    self._died = 0
    self.stacked = stacked_batches(source.spec, batch_size)
    self._used = used
    self._iterator: Iterator | None = None
    self._start(used)

  def take(self, used: int, steps: int) -> tuple[int, dict[str, jax.Array]]:
    """Returns (k, the batches of k of the `steps` steps after `used`, as arrays [stacked, B, …]).

    After the k batches the arrays hold zeros. A jump of `used` restarts Grain.
    """
    if self._iterator is None or used != self._used:
      self._start(used)
    count = min(steps, self.stacked)
    stack: dict[str, np.ndarray] = {}
    for i in range(count):
      for name, rows in self._next().items():
        if name not in stack:
          stack[name] = np.zeros((self.stacked, *rows.shape), rows.dtype)
        stack[name][i] = rows
      self._used += self.batch_size
    return count, placement.stack(stack, self._mesh, self.batch_size)

  def batch(self, data: dict[str, jax.Array], i: jax.Array) -> dict[str, jax.Array]:
    """Returns the i-th batch of the data that `take` returned; see `data.feed.Feed`."""
    return placement.take_from_stack(data, i, self._mesh)

  def close(self) -> None:
    """Stops reading ahead and ends the worker processes."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def _next(self) -> dict[str, np.ndarray]:
    """Waits for the batch after the position; UserError where a worker process died on the way."""
    deaths = 0
    while True:
      try:
        return next(self._iterator)
      except RuntimeError as error:
        code = _exit_code(error)
        if code is None:
          raise
        self.close()
        deaths += 1
        what = (
          f'a process that reads {self.spec.name} {self.spec.split} ended '
          f'{_how(code)} before the batch at {self._examples_at()} was read'
        )
        if not self._restart or deaths > _MOST_DEATHS:
          again = f', {deaths} times in a row' if deaths > 1 else ''
          more = '' if self._restart else ', or config.data.corrupt=skip to start it anew'
          raise errors.UserError(
            f'{what}{again}; memory may have run out: choose fewer than config.data.workers='
            f'{self._workers}, 0 to read with threads{more}'
          ) from error
        self._died += 1
        say(f'{what}; all are started anew ({self._died:,} so far)')
        self._start(self._used)

  def _examples_at(self) -> str:
    """Names the first examples of the batch at the position."""
    first = self._used + self._rows.start
    index = order.indices(self._seed, first, len(self._rows), self.spec.n, block=self._block)[1]
    return f'position {self._used:,} (examples {", ".join(map(str, index[:3]))}, …)'

  def _start(self, used: int) -> None:
    self.close()
    read = _Reader(self._source, self._seed, used, self.batch_size, self._rows, self._block)
    self._used = used
    self._iterator = _read_ahead(read, self._workers, self.stacked)


def _exit_code(error: RuntimeError) -> int | None:
  """The exit code of a worker process that Grain found dead; None for another error."""
  found = re.match(r'Worker process was terminated unexpectedly with exit code (-?\d+)', str(error))
  return found and int(found[1])


def _how(code: int) -> str:
  """How a process ended, in words."""
  if code < 0:
    return f'by the signal {signal.Signals(-code).name}'
  return f'with exit code {code}'


class _Reader(NamedTuple):
  """Reads the k-th batch after `used`; a tuple, so that it can be pickled for worker processes."""

  source: Examples
  seed: int
  used: int
  batch_size: int
  rows: range
  block: int

  def __call__(self, k: int) -> dict[str, np.ndarray]:
    first = self.used + k * self.batch_size + self.rows.start
    epochs, index = order.indices(
      self.seed, first, len(self.rows), self.source.spec.n, block=self.block
    )
    return {**self.source.read(index), 'index': index, 'epoch': epochs}


def stacked_batches(spec: Spec, batch_size: int) -> int:
  """Returns the number of batches in a stack, which depends on the size of a batch alone."""
  sizes = (math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in spec.features.values())
  return max(1, min(_MOST_STACKED, _STACK_BYTES // (batch_size * sum(sizes))))


def _read_ahead(read: _Reader, workers: int, stacked: int) -> Any:
  import grain

  batches = grain.MapDataset.range(_STEPS).map(read)
  options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=max(_AHEAD, stacked))
  if not workers:
    return iter(batches.to_iter_dataset(options))
  ahead = max(_AHEAD_PER_WORKER, -(-stacked // workers))
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD_PER_WORKER)
  processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=ahead)
  return iter(batches.to_iter_dataset(options).mp_prefetch(processes))
