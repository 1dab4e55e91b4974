"""Every example of a split once, in its own order, in batches for evaluators."""

from collections.abc import Iterator, Mapping

import numpy as np

import errors
from data.examples import Examples


def in_order(
  examples: Examples | Mapping[str, np.ndarray], batch_size: int, process: int, processes: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields this process's share of each batch, every example once over all processes.

  Args:
    examples: a source, or arrays name -> [N, ...].
    batch_size: rows of a global batch, a multiple of `processes`.
    process: which share, 0 <= process < processes.
    processes: how many processes there are; all get the same number of batches.

  Yields:
    The features of the examples, `index` int32 and `mask` bool, each
    [batch_size // processes, ...]. Rows past the end repeat the last example and have mask False.

  Raises:
    UserError: batch_size is no multiple of `processes`.
  """
  if batch_size < 1 or batch_size % processes:
    raise errors.UserError(
      f'the batch size {batch_size} does not split over {processes} processes; choose a multiple '
      f'of {processes}'
    )
  return _batches(examples, batch_size // processes, process, processes)


def _batches(
  examples: Examples | Mapping[str, np.ndarray], share: int, process: int, processes: int
) -> Iterator[dict[str, np.ndarray]]:
  arrays = isinstance(examples, Mapping)
  n = len(next(iter(examples.values()))) if arrays else len(examples)
  for start in range(process * share, n + process * share, share * processes):
    places = np.arange(start, start + share)
    index = np.minimum(places, n - 1).astype(np.int32)
    yield {**_read(examples, index), 'index': index, 'mask': places < n}


def _read(
  examples: Examples | Mapping[str, np.ndarray], index: np.ndarray
) -> dict[str, np.ndarray]:
  if isinstance(examples, Mapping):
    return {name: array[index] for name, array in examples.items()}
  return examples.read(index)
