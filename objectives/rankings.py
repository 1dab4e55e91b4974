"""The columns of a prediction among classes: the likeliest first, or every class."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from objectives.base import Batch, Row
from options import Option


def top_option(default: int, what: str) -> Option:
  """The predictor's option `top`, how many of the likeliest are shown."""
  return Option(int, default, f'How many of the likeliest {what} are shown.', low=1)


def conclude_class(means: Mapping[str, jax.Array], batch: Batch, top: int) -> dict[str, jax.Array]:
  """Returns `prediction` int32 [...], the likeliest class, and `probability` [..., K]."""
  del batch, top
  probability = means['probability']
  prediction = jnp.argmax(probability, axis=-1).astype(jnp.int32)
  return {'prediction': prediction, 'probability': probability}


def of_classes(
  noun: str, probability: np.ndarray, names: Sequence[str], top: int, whole: bool
) -> Row:
  """Returns `ranked` of the likeliest classes, or `probability of NAME` beside the likeliest.

  Args:
    noun: what a class is called.
    probability: float [K]; of equal ones the first comes first.
    names: of the classes [K].
    top: how many; all where there are fewer.
    whole: whether every class is wanted.
  """
  order = np.argsort(-probability, kind='stable')[: 1 if whole else top]
  row = ranked(noun, [names[entry] for entry in order], probability[order], whole)
  every = zip(names, probability) if whole else ()
  return {**row, **{f'probability of {name}': share for name, share in every}}


def ranked(noun: str, names: Iterable[str], probability: Iterable[float], whole: bool) -> Row:
  """Returns the columns of entries, the likeliest first.

  Args:
    noun: what an entry is called.
    names: of the entries.
    probability: of the entries.
    whole: whether each probability after the first has a column of its own, `probability 2` beside
      `NOUN 2`, or stands behind the name, as fits a line.
  """
  row: Row = {}
  for rank, (name, share) in enumerate(zip(names, probability), 1):
    suffix = '' if rank == 1 else f' {rank}'
    if whole or rank == 1:
      row[f'{noun}{suffix}'], row[f'probability{suffix}'] = name, share
    else:
      row[f'{noun}{suffix}'] = f'{_visible(name)} {share:.4f}'
  return row


def _visible(name: str) -> str:
  """A name, as Python writes it where it could not be seen."""
  return name if name.isprintable() and name.strip() == name else repr(name)
