"""A stream holds as much memory after 100,000 batches as after its first ones."""

import gc

import jax
import numpy as np
import pytest

from data import source
from data.decoded import decode_once
from data.stream import Stream

_PAGE = 4096


def held():
  """MiB of memory of this process."""
  gc.collect()
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * _PAGE / 2**20


@pytest.mark.slow
@pytest.mark.parametrize('disk', [True, False])
def test_memory_is_flat(prepared_root, mesh, disk):
  part = source.open_source('mnist5k', 'train[:64]', str(prepared_root))
  read = decode_once(part, 1) if disk else _Ready(part)
  stream = Stream(read, 16, 9, mesh, workers=0, used=0)
  step = jax.jit(stream.batch)
  used, batches, first = 0, 0, None
  while batches < 100_000:
    count, taken = stream.take(used, 100)
    last = step(taken, np.int32(count - 1))
    used, batches = used + 16 * count, batches + count
    if first is None and batches >= 10_000:
      jax.block_until_ready(last)
      first = held()
  jax.block_until_ready(last)
  stream.close()
  assert held() - first < 8, (first, held())


class _Ready:
  """Examples in memory: reading them costs nothing."""

  def __init__(self, examples):
    self.spec, self._arrays = examples.spec, examples.load()

  def read(self, indices):
    return {name: array[indices] for name, array in self._arrays.items()}
