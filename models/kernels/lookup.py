"""Rows of a table by their numbers, with a gradient that is one matrix product."""

import jax
import jax.numpy as jnp
from jax import Array

from models.kernels.linear import linear_call

# Up to this many entries a product with one-hot rows beats adding up rows one by one.
_FEW_ENTRIES = 1024


@jax.custom_jvp
def lookup(table: Array, ids: Array) -> Array:
  """Returns the rows of table [V, C] at ids int32 [...], from 0 to below V → [..., C].

  The gradient of a small table is one product with the ids as one-hot rows; that of indexing adds
  up row after row, which XLA:CPU does in a loop.
  """
  return table[ids]


@lookup.defjvp
def _differentiate(primals: tuple[Array, Array], tangents: tuple[Array, Array]):
  (table, ids), (moved, _) = primals, tangents
  entries, dtype = table.shape[0], table.dtype
  gradient = lambda ids, g: _table_gradient(g, ids, entries, dtype)  # noqa: E731
  return lookup(table, ids), linear_call(lambda ids, table: table[ids], gradient, ids, moved)


def _table_gradient(g: Array, ids: Array, entries: int, dtype: jnp.dtype) -> Array:
  """g [..., C], ids [...] → [entries, C]: the sum of the rows of g that have each id."""
  ids, g = ids.reshape(-1), g.reshape(-1, g.shape[-1])
  if entries > _FEW_ENTRIES:
    return jnp.zeros((entries, g.shape[-1]), dtype).at[ids].add(g.astype(dtype))
  rows = jax.nn.one_hot(ids, entries, dtype=g.dtype)
  return (rows.T @ g).astype(dtype)
