"""The interface of all kinds of examples: splits, subsets of classes, folds, rows of text."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data.spec import Spec

_BLOCK = 1024  # examples read at a time, which bounds the memory needed in addition to the result

Indices = Sequence[int] | np.ndarray


class Examples(abc.ABC):
  """A sequence of examples with random access.

  A subclass sets the attributes and defines `read`. The other methods are derived from it; a
  subclass overrides those that it can do with less work, or in less memory.

  Attributes:
    spec: describes an example.
    stamp: a string that changes when the data set is prepared again.
  """

  spec: Spec
  stamp: str

  def __len__(self) -> int:
    """Returns the number of examples."""
    return self.spec.n

  @abc.abstractmethod
  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Reads and decodes the examples at `indices`: every feature of the spec, [B, …]."""

  def column(self, name: str) -> np.ndarray:
    """Reads one feature of every example, [N, …]."""
    return np.concatenate([self.read(block)[name] for block in blocks(len(self), _BLOCK)])

  def load(self) -> dict[str, np.ndarray]:
    """Reads all examples into arrays, from which `rows` gathers examples.

    By default these are the features of the spec, [N, …]; all examples must have one size.
    """
    arrays = {
      name: np.empty((len(self), *shape), dtype)
      for name, (shape, dtype) in self.spec.features.items()
    }
    for block in blocks(len(self), _BLOCK):
      for name, values in self.read(block).items():
        arrays[name][block.start : block.stop] = values
    return arrays

  @property
  def nbytes(self) -> int:
    """Bytes of memory that the arrays of `load` take."""
    sizes = (
      int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
      for shape, dtype in self.spec.features.values()
    )
    return len(self) * sum(sizes)

  def rows(self, arrays: Mapping[str, Any], index: Any) -> dict[str, Any]:
    """Gathers the examples `index` int32 [B] from the arrays of `load`; pure, works inside jit."""
    return take(arrays, index)


def take(arrays: Mapping[str, Any], index: Any) -> dict[str, Any]:
  """Returns the rows `index` int32 [B] of JAX arrays [N, …]; every index must be below N."""
  return {name: array.at[index].get(mode='promise_in_bounds') for name, array in arrays.items()}


def blocks(n: int, size: int) -> Iterator[range]:
  """Yields consecutive ranges of `size` that cover range(n); the last may be shorter."""
  for start in range(0, n, size):
    yield range(start, min(start + size, n))
