"""What a data set looks like, in a form that a run can store."""

import hashlib
from typing import Any, NamedTuple

Feature = tuple[tuple[int, ...], str]


class Spec(NamedTuple):
  """One split of one data set, as training sees it.

  Attributes:
    name: the name it was requested by, e.g. 'mnist5k' or 'dataset/config'.
    split: a TFDS split, e.g. 'train' or 'train[90%:]'.
    n: how many examples it has.
    features: name -> (shape, dtype) of ONE example: 'image' is uint8 HWC, 'inputs' float32 [D],
      'label' an int32 scalar, 'target' a float32 scalar, further columns int32 scalars; of text
      'tokens' and 'kind' int32 [R] and 'length' an int32 scalar, and before it is cut into tokens
      'text' (a 'string'), 'kind_start' and 'kind' int32 [-1], where -1 is any length.
    num_classes: how many labels there are, or kinds of tokens where there are those instead; 0 if
      the labels are not classes or missing.
    identity: a hexadecimal key that differs where the examples differ.
    class_names: of the labels or kinds, in order; numbers where the data set names none.
    tokenizer: of text, the JSON of `data.text.tokenization.from_json`; '' for other data.
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
    """Converts it to what JSON can hold; of the tokenizer, which can be long, only a key."""
    features = {name: [list(shape), dtype] for name, (shape, dtype) in self.features.items()}
    return {**self._asdict(), 'features': features, 'tokenizer': self.tokenizer_key}

  @property
  def tokenizer_key(self) -> str:
    """A hexadecimal key of the tokenizer; '' for none."""
    return hashlib.sha256(self.tokenizer.encode()).hexdigest()[:16] if self.tokenizer else ''

  @classmethod
  def from_json(cls, stored: dict[str, Any]) -> 'Spec':
    """Converts back what `to_json` gave, without its tokenizer."""
    features = {name: (tuple(shape), dtype) for name, (shape, dtype) in stored['features'].items()}
    names = tuple(stored['class_names'])
    return cls(**{**stored, 'features': features, 'class_names': names, 'tokenizer': ''})
