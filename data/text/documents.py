"""Rows of tokens with one document each, truncated or padded to one length."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import errors
from data.examples import Examples, Indices
from data.spec import Spec
from data.text.encoded import EncodedText
from data.text.subword import Template


class Documents(Examples):
  """Documents as rows of tokens: [class] tokens [separator], as in BERT.

  A special is left out if the tokenizer does not have it. A long document is truncated at its end.

  Args:
    encoded: the texts.
    spec: the description of the documents.
    row: R, tokens in a row.
    specials: ids of the special entries by role.
    stamp: the stamp of the documents.
    template: ids before and after a document; None for `class` and `separator`.

  Attributes:
    before: ids before a document.
    room: tokens of a document that a row holds.

  Raises:
    UserError: the specials leave no room for a token.
  """

  def __init__(
    self,
    encoded: EncodedText,
    spec: Spec,
    *,
    row: int,
    specials: Mapping[str, int],
    stamp: str,
    template: Template | None = None,
  ):
    self._encoded = encoded
    self._row = row
    if template is None:
      roles = ('class', 'separator')
      template = tuple(tuple(specials[r] for r in (role,) if r in specials) for role in roles)
    self.before, self._last = template
    self._end = int('end' in specials)
    self._pad = specials.get('pad', 0)
    self.room = row - len(self.before) - len(self._last)
    if self.room < 1:
      raise errors.UserError(
        f'config.data.text.length leaves no room for a token between the specials of a document, '
        f'which fill {row - self.room} of {row}; choose a larger one'
      )
    self.stamp = stamp
    if encoded.kind is None and 'label' not in spec.features:
      spec = spec._replace(num_classes=0, class_names=())  # the classes are kinds, not requested
    others = {name: spec.features[name] for name in encoded.features}
    kinds = {} if encoded.kind is None else {'kind': ((row,), 'int32')}
    parts = (spec.identity, spec.tokenizer_key, 'documents', row, [*kinds])
    self.spec = spec._replace(
      features={'tokens': ((row,), 'int32'), **kinds, 'length': ((), 'int32'), **others},
      identity=hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
    )

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Reads `tokens`, `kind` if requested, int32 [B, R], `length` int32 [B], and other features.

    After the `length` real tokens of a row, tokens are `pad` (0 if the tokenizer has none); `kind`
    is -1 there and for specials.
    """
    indices = np.asarray(indices, np.int64)
    ends = self._encoded.ends
    starts = np.where(indices > 0, ends[np.maximum(indices, 1) - 1], 0)
    counts = np.minimum(ends[indices] - self._end - starts, self.room)
    column = np.arange(self._row) - len(self.before)
    inside = (column >= 0) & (column < counts[:, None])
    positions = np.where(inside, starts[:, None] + column, 0)
    tokens = np.where(inside, self._encoded.tokens[positions], self._pad).astype(np.int32)
    tokens[:, : len(self.before)] = self.before
    for i, id in enumerate(self._last):
      tokens[np.arange(len(indices)), len(self.before) + counts + i] = id
    values: dict[str, Any] = {'tokens': tokens}
    if self._encoded.kind is not None:
      values['kind'] = np.where(inside, self._encoded.kind[positions], -1).astype(np.int32)
    values['length'] = (counts + self._row - self.room).astype(np.int32)
    return {**values, **{name: each[indices] for name, each in self._encoded.features.items()}}

  def load(self) -> dict[str, np.ndarray]:
    """Reads all rows, without the decoding that the default does: the text is encoded already."""
    return self.read(range(len(self)))
