"""The examples found in files of one's own, and their assignment to splits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data.spec import InputColumn

TRAIN, TEST, VALIDATION = 'train', 'test', 'validation'


class Entry(NamedTuple):
  """One example, before it is read for good.

  Attributes:
    digest: SHA-256 of its content.
    label: the name of its class; None where there are no classes.
    source: what `Contents.example` reads it from.
    title: what it is called in messages, e.g. the name of its file.
  """

  digest: bytes
  label: str | None
  source: Any
  title: str


class Contents(NamedTuple):
  """The examples in files of one's own.

  Attributes:
    splits: the examples by split.
    classes: the names of the classes, in order; empty for none.
    features: returns the features, which TFDS declares.
    example: reads an example: the features, without `label`; ValueError says why it cannot.
    what: what the examples are, e.g. 'pictures'.
    notes: lines about what was found.
    left_out: what is not read, and why, by name.
    digest: stands for the content where that is more than the examples; else ''.
    input_columns: of a table, the columns that `inputs` are made of, in order.
  """

  splits: Mapping[str, Sequence[Entry]]
  classes: tuple[str, ...]
  features: Callable[[], Mapping[str, Any]]
  example: Callable[[Entry], Mapping[str, Any]]
  what: str
  notes: tuple[str, ...] = ()
  left_out: Mapping[str, str] = {}
  digest: str = ''
  input_columns: Sequence[InputColumn] = ()


def deal(entries: Sequence[Entry], others: Sequence[str] = (TEST,)) -> dict[str, list[Entry]]:
  """Gives a tenth of the examples to each of the splits `others`, and the rest to `train`.

  By a hash of the content: an example stays where it is when others are added, and equal ones are
  together. A split that would be empty gets one example, if there are enough.
  """
  names = dict(enumerate(others))
  dealt: dict[str, list[Entry]] = {name: [] for name in (TRAIN, *others)}
  for entry in sorted(entries, key=lambda entry: entry.digest):
    dealt[names.get(int.from_bytes(entry.digest[:8], 'big') % 10, TRAIN)].append(entry)
  for name in dealt:
    largest = max(dealt.values(), key=len)
    if not dealt[name] and len(largest) > 1:
      dealt[name].append(largest.pop())
  return dealt
