"""Places host arrays on the devices of a mesh, in jobs of one or several processes.

The mesh has the axes 'data', 'fsdp' and 'tensor'; a batch is sharded over the first two. The loop
runs under jax.transfer_guard('disallow'); the transfers here are intended, and so allowed.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import errors

BATCH = PartitionSpec(('data', 'fsdp'))
_STACK = PartitionSpec(None, ('data', 'fsdp'))


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Copies the NumPy arrays of `tree` to every device of the mesh."""
  sharding = NamedSharding(mesh, PartitionSpec())

  def put(array: np.ndarray) -> jax.Array:
    # Unlike device_put, this needs no communication between processes.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

  with jax.transfer_guard('allow'):
    return jax.tree.map(put, tree)


def stack(local: Any, mesh: Mesh, batch_size: int) -> Any:
  """Makes global arrays [K, batch_size, …] of this process's rows [K, rows, …] of K batches."""
  sharding = NamedSharding(mesh, _STACK)

  def put(rows: np.ndarray) -> jax.Array:
    shape = (len(rows), batch_size, *rows.shape[2:])
    return jax.make_array_from_process_local_data(sharding, rows, shape)

  with jax.transfer_guard('allow'):
    return jax.tree.map(put, local)


def describe(tree: Any, mesh: Mesh) -> Any:
  """Returns the shapes of arrays as `replicate` would place them; nothing is copied."""
  return _shapes(tree, NamedSharding(mesh, PartitionSpec()))


def describe_stack(local: Any, mesh: Mesh, batch_size: int, batches: int) -> Any:
  """Returns the shapes of so many batches as `stack` would place them.

  Args:
    local: some rows [rows, …] of one batch, or their shapes.
    mesh: axes 'data', 'fsdp', 'tensor'.
    batch_size: examples of a batch.
    batches: how many there are.
  """
  shapes = jax.tree.map(
    lambda rows: jax.ShapeDtypeStruct((batches, batch_size, *rows.shape[1:]), rows.dtype), local
  )
  return _shapes(shapes, NamedSharding(mesh, _STACK))


def _shapes(tree: Any, sharding: NamedSharding) -> Any:
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
  )


def take_from_stack(stacked: dict[str, jax.Array], i: jax.Array, mesh: Mesh) -> Any:
  """Returns the i-th of the batches that `stack` made, split over the mesh; for use inside jit."""
  batch = {
    name: jax.lax.dynamic_index_in_dim(array, i, keepdims=False) for name, array in stacked.items()
  }
  return split_batch(batch, mesh)


def split_batch(tree: Any, mesh: Mesh) -> Any:
  """Constrains the first axis of each array to be sharded over the mesh; for use inside jit."""
  return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, BATCH))


def check_batch(batch_size: int, mesh: Mesh) -> None:
  """Raises UserError unless the batch splits evenly over the mesh."""
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size < 1 or batch_size % ways:
    raise errors.UserError(
      f'config.data.batch_size={batch_size} does not split over the {ways} devices of the mesh '
      f'(data * fsdp); choose a multiple of {ways}'
    )


def local_rows(mesh: Mesh, batch_size: int) -> range:
  """Returns the rows of the global batch that the devices of this process hold.

  Raises:
    UserError: they are not contiguous.
  """
  spans = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
  bounds = {span.indices(batch_size)[:2] for (span,) in spans}
  rows = range(min(start for start, _ in bounds), max(stop for _, stop in bounds))
  if sum(stop - start for start, stop in bounds) != len(rows):
    raise errors.UserError(
      'the devices of a process hold rows of the batch that are not contiguous; build the mesh '
      "with each process's devices next to each other along data and fsdp"
    )
  return rows
