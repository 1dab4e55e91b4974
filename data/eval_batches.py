"""Batches for evaluators: every example of a split exactly once, in the order of the split."""

from collections.abc import Iterator, Mapping

import numpy as np

from data.examples import Examples


def batches_in_order(
  examples: Examples | Mapping[str, np.ndarray], batch_size: int, rows: range
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batches that cover a split in order, or the rows of them that a process reads.

  Args:
    examples: examples, or arrays name -> [N, ...].
    batch_size: rows of a whole batch.
    rows: the rows of each batch to read, 0 <= row < batch_size: all, or those of this process. The
      number of batches does not depend on it.

  Yields:
    The features of the examples, `index` int32 (their number in the split) and `mask` bool, each
    [len(rows), ...]. Rows past the end repeat the last example and have mask False.
  """
  arrays = isinstance(examples, Mapping)
  n = len(next(iter(examples.values()))) if arrays else len(examples)
  for start in range(0, n, batch_size):
    positions = np.arange(start + rows.start, start + rows.stop)
    index = np.minimum(positions, n - 1).astype(np.int32)
    yield {**_read(examples, index), 'index': index, 'mask': positions < n}


def _read(
  examples: Examples | Mapping[str, np.ndarray], index: np.ndarray
) -> dict[str, np.ndarray]:
  if isinstance(examples, Mapping):
    return {name: array[index] for name, array in examples.items()}
  return examples.read(index)
