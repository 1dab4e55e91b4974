"""Where the training loop takes its batches from, and the choice between the two kinds of feed."""

from typing import Any, Protocol

import jax
from jax.sharding import Mesh

import errors
from data import placement
from data.examples import Examples
from data.resident import Resident
from data.spec import Spec
from data.stream import Stream

_MIB = 2**20


class Feed(Protocol):
  """Hands out the batches after any position `used`, always the same ones for a seed.

  The host calls `take` and passes what it gave, unchanged and not donated, into the jitted step,
  which calls `batch`.

  Attributes:
    spec: what an example looks like.
    batch_size: B, examples in a global batch.
  """

  spec: Spec
  batch_size: int

  def take(self, used: int, steps: int) -> tuple[int, Any]:
    """Takes the data of k of the `steps` steps after `used`: (k, the data), 1 <= k <= steps."""

  def batch(self, taken: Any, i: jax.Array) -> dict[str, jax.Array]:
    """Picks the i-th batch of what was taken, 0 <= i < k; pure, for use inside jit.

    Returns:
      The global batch, split over the mesh: image uint8 [B, H, W, C], label int32 [B] (where there
      is one), index int32 [B], epoch uint32 [B]; of text tokens int32 [B, R], length int32 [B],
      kind int32 [B, R] (where it is requested).
    """

  def close(self) -> None:
    """Stops what runs in the background and lets go of the data."""


def open_feed(
  *,
  source: Examples,
  batch_size: int,
  seed: int,
  resident_mb: int,
  workers: int,
  mesh: Mesh,
  used: int = 0,
) -> Feed:
  """Opens a feed: on the devices where the decoded split fits `resident_mb`, else streamed.

  Args:
    source: the examples.
    batch_size: examples in a global batch; may exceed the split, a batch may cross epochs.
    seed: of the order of examples, 0 <= seed < 2**32.
    resident_mb: MiB that each device may hold of decoded data; 0 always streams.
    workers: processes that decode when streaming; 0 means threads.
    mesh: axes 'data', 'fsdp', 'tensor'.
    used: the position training starts from; only spares a stream a restart.

  Raises:
    UserError: a number above is out of range.
  """
  _check(batch_size, seed, workers, mesh)
  if source.nbytes <= resident_mb * _MIB:
    return Resident(source.load(), source.spec, batch_size, seed, mesh, source.rows)
  return Stream(source, batch_size, seed, mesh, workers, used)


def _check(batch_size: int, seed: int, workers: int, mesh: Mesh) -> None:
  placement.check_batch(batch_size, mesh)
  if not 0 <= seed < 2**32:
    raise errors.UserError(f'the seed {seed} is out of range; choose 0 <= seed < 2**32')
  if workers < 0:
    raise errors.UserError(
      f'config.data.workers={workers} is negative; choose 0 for threads, or how many processes'
    )
