"""The columns of a prediction among classes: the likeliest first, or every class."""

from collections.abc import Sequence

import numpy as np

from objectives.base import Row
from options import Option


def top_option(default: int, what: str) -> Option:
  """The predictor's option `top`, how many of the likeliest are shown."""
  return Option(int, default, f'How many of the likeliest {what} are shown.', low=1)


def likeliest(noun: str, probability: np.ndarray, names: Sequence[str], top: int) -> Row:
  """Returns `NOUN`, `probability`, `NOUN 2`, `probability 2`, … of the likeliest entries.

  Args:
    noun: what an entry is, e.g. 'class'.
    probability: float [K]; of equal ones the first comes first.
    names: of the entries [K].
    top: how many; all where there are fewer.
  """
  order = np.argsort(-probability, kind='stable')[:top]
  return ranked(noun, [names[entry] for entry in order], probability[order])


def ranked(noun: str, names: Sequence[str], probability: Sequence[float]) -> Row:
  """Returns the columns of `likeliest` for entries that are in order already."""
  row: Row = {}
  for rank, (name, share) in enumerate(zip(names, probability), 1):
    suffix = '' if rank == 1 else f' {rank}'
    row[f'{noun}{suffix}'], row[f'probability{suffix}'] = name, share
  return row


def with_every_class(noun: str, probability: np.ndarray, names: Sequence[str], top: int) -> Row:
  """Returns `NOUN` and `probability` of the likeliest, and `probability of NAME` of each class."""
  del top
  every = {f'probability of {name}': share for name, share in zip(names, probability)}
  return {**likeliest(noun, probability, names, 1), **every}
