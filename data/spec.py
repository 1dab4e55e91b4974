"""The description of a data set's split, which a run stores as JSON."""

import hashlib
from typing import Any, NamedTuple

Feature = tuple[tuple[int, ...], str]


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
  """

  name: str
  split: str
  n: int
  features: dict[str, Feature]
  num_classes: int
  identity: str
  class_names: tuple[str, ...] = ()
  tokenizer: str = ''

  def to_json(self) -> dict[str, Any]:
    """Converts to JSON-compatible values; the tokenizer, which can be long, becomes its key."""
    features = {name: [list(shape), dtype] for name, (shape, dtype) in self.features.items()}
    return {**self._asdict(), 'features': features, 'tokenizer': self.tokenizer_key}

  @property
  def tokenizer_key(self) -> str:
    """A hash of the tokenizer, hexadecimal; '' for none."""
    return tokenizer_key(self.tokenizer)

  @classmethod
  def from_json(cls, stored: dict[str, Any]) -> 'Spec':
    """Converts back from the values of `to_json`, without the tokenizer."""
    features = {name: (tuple(shape), dtype) for name, (shape, dtype) in stored['features'].items()}
    names = tuple(stored['class_names'])
    return cls(**{**stored, 'features': features, 'class_names': names, 'tokenizer': ''})


def tokenizer_key(text: str) -> str:
  """Returns a hash of a tokenizer's JSON, hexadecimal; '' for none."""
  return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ''
