"""The description of a data set's split, which a run stores as JSON."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Feature = tuple[tuple[int, ...], str]


class InputColumn(NamedTuple):
  """How a column of a table became inputs.

  Attributes:
    name: in the table's header.
    words: of a category, in order: each is an input of 0 or 1. () for a number, one input.
    fill: what a missing number was filled in with, and for words any number, where a missing one is
      0 for all; None where missing values are refused.
    is_truth: whether the column holds true (1) and false (0).
  """

  name: str
  words: tuple[str, ...] = ()
  fill: float | None = None
  is_truth: bool = False

  @property
  def width(self) -> int:
    """How many inputs it is."""
    return len(self.words) or 1


class Spec(NamedTuple):
  """A description of one split of a data set: its examples, their features and classes.

  Attributes:
    name: the name it was requested by, e.g. 'mnist5k' or 'dataset/config'.
    split: a TFDS split, e.g. 'train' or 'train[90%:]'.
    n: number of examples.
    features: name -> (shape, dtype) of ONE example: 'image' is uint8 HWC, 'inputs' float32 [D],
      'label' an int32 scalar, 'target' a float32 scalar, further columns int32 scalars; of text
      'tokens' and 'kind' int32 [R] and 'length' an int32 scalar, and before it is tokenized 'text'
      (a 'string'), 'kind_start' and 'kind' int32 [-1], where -1 is any length.
    num_classes: number of labels, or of kinds of tokens if the data has those instead; 0 if the
      labels are missing or not classes.
    identity: a hexadecimal key that differs where the examples differ.
    class_names: names of the labels or kinds, in order; numbers if the data set has no names.
    tokenizer: of text, the JSON that `data.text.tokenization.from_json` reads; '' for other data.
    input_columns: of a table, the columns that `inputs` are made of, in order; () where that is not
      known.
    left_out: number of stored examples that cannot be read, which n does not count.
  """

  name: str
  split: str
  n: int
  features: dict[str, Feature]
  num_classes: int
  identity: str
  class_names: tuple[str, ...] = ()
  tokenizer: str = ''
  input_columns: tuple[InputColumn, ...] = ()
  left_out: int = 0

  def to_json(self) -> dict[str, Any]:
    """Converts to JSON-compatible values; the tokenizer, which can be long, becomes its key."""
    features = {name: [list(shape), dtype] for name, (shape, dtype) in self.features.items()}
    columns = [column._asdict() for column in self.input_columns]
    plain = {**self._asdict(), 'features': features, 'tokenizer': self.tokenizer_key}
    return {**plain, 'input_columns': columns}

  @property
  def tokenizer_key(self) -> str:
    """A hash of the tokenizer, hexadecimal; '' for none."""
    return tokenizer_key(self.tokenizer)

  @classmethod
  def from_json(cls, stored: dict[str, Any]) -> 'Spec':
    """Converts back from the values of `to_json`, without the tokenizer."""
    features = {name: (tuple(shape), dtype) for name, (shape, dtype) in stored['features'].items()}
    given = {
      'features': features,
      'class_names': tuple(stored['class_names']),
      'input_columns': input_columns(stored.get('input_columns', ())),
      'tokenizer': '',
    }
    return cls(**{**stored, **given})


def input_columns(stored: Iterable[Mapping[str, Any]]) -> tuple[InputColumn, ...]:
  """Converts the columns of a table from JSON, mappings with the attributes of `InputColumn`."""
  return tuple(InputColumn(**{**each, 'words': tuple(each.get('words', ()))}) for each in stored)


def tokenizer_key(text: str) -> str:
  """Returns a hash of a tokenizer's JSON, hexadecimal; '' for none."""
  return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ''
