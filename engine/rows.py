"""Cutting the rows of a batch into slices that each device already holds its part of."""

from typing import Any

import jax


def cut_rows(tree: Any, pieces: int) -> Any:
  """Reshapes every array [pieces·B, …] of a tree to [B, pieces, …]; piece i is every i-th row.

  Strided, so that each device keeps the rows it has.
  """
  return jax.tree.map(lambda x: x.reshape(-1, pieces, *x.shape[1:]), tree)


def take_piece(tree: Any, piece: Any) -> Any:
  """Returns the rows [B, …] of one piece of `cut_rows`."""
  return jax.tree.map(lambda x: x[:, piece], tree)
