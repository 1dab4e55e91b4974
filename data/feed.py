"""Feeds give the training loop its batches; `open_feed` chooses between the two kinds."""

from typing import Any, Protocol

import jax
from jax.sharding import Mesh

import errors
from data import placement
from data.examples import Examples
from data.resident import Resident
from data.spec import Spec
from data.stream import Stream, stacked_batches

_MIB = 2**20


class Feed(Protocol):
  """Provides the batches after any position `used` in the data; they depend on it and a seed alone.

  The host calls `take` and passes the data that it returns, unchanged and not donated, to the
  jitted step, which calls `batch`.

  Attributes:
    spec: describes an example.
    batch_size: B, examples in a global batch.
  """

  spec: Spec
  batch_size: int

  def take(self, used: int, steps: int) -> tuple[int, Any]:
    """Returns (k, data) for the first k of the `steps` steps after `used`, 1 <= k <= steps."""

  def batch(self, data: Any, i: jax.Array) -> dict[str, jax.Array]:
    """Returns the i-th batch of the data that `take` returned, 0 <= i < k; pure, works inside jit.

    Returns:
      The global batch, sharded over the mesh: image uint8 [B, H, W, C], label int32 [B] (if there
      is one), index int32 [B], epoch uint32 [B]; of text tokens int32 [B, R], length int32 [B],
      kind int32 [B, R] (if requested).
    """

  def close(self) -> None:
    """Stops background work and releases the data."""


def open_feed(
  *,
  source: Examples,
  batch_size: int,
  seed: int,
  resident_mb: int,
  workers: int,
  mesh: Mesh,
  used: int = 0,
  block: int = 0,
  restart: bool = False,
) -> Feed:
  """Opens a resident feed if the decoded split fits in `resident_mb`, else a streamed one.

  Args:
    source: the examples.
    batch_size: examples in a global batch; may exceed the split, since a batch may cross epochs.
    seed: seed of the order of examples, 0 <= seed < 2**32.
    resident_mb: MiB of decoded data that each device may hold; 0 always streams.
    workers: processes that decode when streaming; 0 means threads.
    mesh: axes 'data', 'fsdp', 'tensor'.
    used: the position that a streamed feed starts to read ahead from; any other works, more slowly.
    block: examples in a block of the order, which are consecutive in the split; 0 for none.
    restart: whether worker processes that die are started anew.

  Raises:
    UserError: a number above is out of range.
  """
  _check(batch_size, seed, workers, mesh)
  if source.nbytes <= resident_mb * _MIB:
    return Resident(source.load(), source.spec, batch_size, seed, mesh, source.rows, block)
  return Stream(source, batch_size, seed, mesh, workers, used, block, restart)


class Described:
  """A feed of the shapes of streamed batches, for programs that are compiled and not run.

  Args:
    spec: describes an example.
    batch_size: examples in a global batch.
    mesh: axes 'data', 'fsdp', 'tensor'.
  """

  def __init__(self, spec: Spec, batch_size: int, mesh: Mesh):
    placement.check_batch(batch_size, mesh)
    self.spec = spec
    self.batch_size = batch_size
    self._mesh = mesh

  def take(self, used: int, steps: int) -> tuple[int, dict[str, jax.ShapeDtypeStruct]]:
    """Returns (k, the shapes of a stack of batches [K, B, …]), of which k are used."""
    del used
    stacked = stacked_batches(self.spec, self.batch_size)
    features = {**self.spec.features, 'index': ((), 'int32'), 'epoch': ((), 'uint32')}
    one = {
      name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in features.items()
    }
    described = placement.describe_stack(one, self._mesh, self.batch_size, stacked)
    return min(steps, stacked), described

  def batch(self, data: dict[str, jax.Array], i: jax.Array) -> dict[str, jax.Array]:
    """Returns the i-th batch of the data that `take` describes; see `Feed`."""
    return placement.take_from_stack(data, i, self._mesh)

  def close(self) -> None:
    """Does nothing."""


def describe_feed(
  *, source: Examples, batch_size: int, resident_mb: int, mesh: Mesh, block: int = 0
) -> Feed:
  """Returns the feed that `open_feed` would open, with the shapes of its data in their place.

  Args:
    source: the examples.
    batch_size: examples in a global batch.
    resident_mb: MiB of decoded data that each device may hold.
    mesh: of devices that need not be here.
    block: examples in a block of the order; 0 for none.

  Raises:
    UserError: the batch does not split over the mesh.
  """
  _check(batch_size, 0, 0, mesh)
  if source.nbytes > resident_mb * _MIB:
    return Described(source.spec, batch_size, mesh)
  return Resident(
    source.load(), source.spec, batch_size, 0, mesh, source.rows, block, placement.describe
  )


def _check(batch_size: int, seed: int, workers: int, mesh: Mesh) -> None:
  placement.check_batch(batch_size, mesh)
  if not 0 <= seed < 2**32:
    raise errors.UserError(f'the seed {seed} is out of range; choose 0 <= seed < 2**32')
  if workers < 0:
    raise errors.UserError(
      f'config.data.workers={workers} is negative; choose 0 for threads, or a number of processes'
    )
