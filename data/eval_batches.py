"""Every example of a split once, in its own order, in batches for evaluators."""

from collections.abc import Iterator, Mapping

import numpy as np

from data.examples import Examples


def in_order(
  examples: Examples | Mapping[str, np.ndarray], batch_size: int, rows: range
) -> Iterator[dict[str, np.ndarray]]:
  """Yields some rows of every batch.

  Args:
    examples: a source, or arrays name -> [N, ...].
    batch_size: rows of a whole batch.
    rows: the rows of a batch that are read, 0 <= row < batch_size: all, or those of a process. Any
      rows give as many batches.

  Yields:
    The features of the examples, `index` int32 (their number in the split) and `mask` bool, each
    [len(rows), ...]. Rows past the end repeat the last example and have mask False.
  """
  arrays = isinstance(examples, Mapping)
  n = len(next(iter(examples.values()))) if arrays else len(examples)
  for start in range(0, n, batch_size):
    places = np.arange(start + rows.start, start + rows.stop)
    index = np.minimum(places, n - 1).astype(np.int32)
    yield {**_read(examples, index), 'index': index, 'mask': places < n}


def _read(
  examples: Examples | Mapping[str, np.ndarray], index: np.ndarray
) -> dict[str, np.ndarray]:
  if isinstance(examples, Mapping):
    return {name: array[index] for name, array in examples.items()}
  return examples.read(index)
