"""What every kind of examples can do: a split, some of its classes, a fold, rows of its text."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data.spec import Spec

_BLOCK = 1024  # examples read at a time: bounds what is held beside the result

Indices = Sequence[int] | np.ndarray


class Examples(abc.ABC):
  """Examples that are read at random.

  A subclass sets the attributes and gives `read`. The other members follow from that; it overrides
  those that it can do with less work, or in less memory.

  Attributes:
    spec: what an example looks like.
    stamp: a word that changes when the data set is prepared again.
  """

  spec: Spec
  stamp: str

  def __len__(self) -> int:
    """How many examples there are."""
    return self.spec.n

  @abc.abstractmethod
  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Reads examples, decoded: every feature of the spec, [B, …], B the number of indices."""

  def column(self, name: str) -> np.ndarray:
    """Reads one feature of every example, [N, …]."""
    return np.concatenate([self.read(block)[name] for block in blocks(len(self), _BLOCK)])

  def load(self) -> dict[str, np.ndarray]:
    """Reads all examples into the arrays that `rows` takes examples from.

    Here they are the features of the spec, [N, …]; the features must not differ in size.
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
    """Takes the examples `index` int32 [B] out of the arrays of `load`; pure, also inside jit."""
    return take(arrays, index)


def take(arrays: Mapping[str, Any], index: Any) -> dict[str, Any]:
  """The rows `index` int32 [B] of JAX arrays [N, …]; each index must be below N."""
  return {name: array.at[index].get(mode='promise_in_bounds') for name, array in arrays.items()}


def blocks(n: int, size: int) -> Iterator[range]:
  """Cuts range(n) into ranges of `size`, the last of which may be shorter."""
  for start in range(0, n, size):
    yield range(start, min(start + size, n))
