"""Tokenizers of bytes and of characters."""

import json
from collections.abc import Iterable, Sequence

import numpy as np

import errors

# The text of each special entry, by role, as in GPT-2 and BERT.
SPECIALS = {
  'end': '<|endoftext|>',
  'pad': '[PAD]',
  'unknown': '[UNK]',
  'mask': '[MASK]',
  'class': '[CLS]',
  'separator': '[SEP]',
}
_BYTES = 256


class _Symbols:
  """A tokenizer whose entries stand for fixed bytes, whatever their context.

  Args:
    entries: the bytes of the ordinary entries.
    specials: roles of the special entries, which come after them.
  """

  def __init__(self, entries: Sequence[bytes], specials: Sequence[str]):
    self.size = len(entries) + len(specials)
    self.specials = {role: len(entries) + i for i, role in enumerate(specials)}
    self.ends = tuple(self.specials[role] for role in ('end',) if role in self.specials)
    self.template, self.whole_only = None, False
    shown = [b'' if role == 'pad' else SPECIALS[role].encode() for role in specials]
    self._written = [*entries, *shown]

  def decode(self, ids: Sequence[int]) -> str:
    """See `tokenization.Tokenizer`; bytes that are not UTF-8 become �."""
    return b''.join(self._written[int(id)] for id in ids).decode(errors='replace')

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """See `tokenization.Tokenizer`."""
    return [self.encode(text) for text in texts]

  def token_bytes(self) -> np.ndarray | None:
    """See `tokenization.Tokenizer`."""
    lengths = np.array([len(entry) for entry in self._written], np.int32)
    lengths[self.size - len(self.specials) :] = 0
    return lengths


class Byte(_Symbols):
  """The bytes of UTF-8: ids 0 to 255, then the specials."""

  def __init__(self, specials: Sequence[str]):
    super().__init__([bytes([value]) for value in range(_BYTES)], specials)

  def encode(self, text: str) -> np.ndarray:
    """See `tokenization.Tokenizer`; every text can be encoded."""
    return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """See `tokenization.Tokenizer`."""
    ids = self.encode(text)
    return ids, np.arange(len(ids))

  def to_json(self) -> str:
    """See `tokenization.Tokenizer`."""
    return json.dumps({'kind': 'byte', 'specials': list(self.specials)})


class Character(_Symbols):
  """Unicode characters, then the specials.

  Args:
    characters: the vocabulary in order, each character once.
    specials: roles of the special entries; with `unknown`, all other characters get its id.
  """

  def __init__(self, characters: str, specials: Sequence[str]):
    super().__init__([character.encode() for character in characters], specials)
    self._characters = characters
    codes = code_points(characters)
    # The last entry is for all code points above the highest in the vocabulary.
    self._ids = np.full(int(codes.max(initial=0)) + 2, self.specials.get('unknown', -1), np.int32)
    self._ids[codes] = np.arange(len(characters))

  def encode(self, text: str) -> np.ndarray:
    """See `tokenization.Tokenizer`."""
    utf8(text)
    codes = code_points(text)
    ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
    if (ids < 0).any():
      at = int(np.argmax(ids < 0))
      raise errors.UserError(
        f'the vocabulary of {len(self._characters)} characters lacks {text[at]!r}, character '
        f'{at + 1:,} of {text[:30]!r}…; leave it out, or train with config.data.text.tokenizer='
        'byte or with "unknown" in config.data.text.specials'
      )
    return ids

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """See `tokenization.Tokenizer`."""
    return self.encode(text), byte_starts(text)[:-1]

  def token_bytes(self) -> np.ndarray | None:
    """See `tokenization.Tokenizer`."""
    return None if 'unknown' in self.specials else super().token_bytes()

  def to_json(self) -> str:
    """See `tokenization.Tokenizer`."""
    stored = {'kind': 'character', 'characters': self._characters, 'specials': [*self.specials]}
    return json.dumps(stored)


def train_byte(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Byte:
  """Makes a tokenizer of bytes, without reading the texts; see `tokenization.train`."""
  del texts
  _check_no_vocabulary('byte', vocabulary)
  return Byte(specials)


def train_character(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Character:
  """Makes a tokenizer of all characters in the texts, by code point; see `tokenization.train`."""
  _check_no_vocabulary('character', vocabulary)
  characters: set[str] = set()
  for text in texts:
    characters.update(text)
  return Character(''.join(sorted(characters)), specials)


def _check_no_vocabulary(kind: str, vocabulary: int) -> None:
  if vocabulary:
    raise errors.UserError(
      f'config.data.text.vocabulary={vocabulary} is for the tokenizers that are trained to a size, '
      f'bpe and wordpiece; set it to 0 for {kind}'
    )


def utf8(text: str) -> bytes:
  """Encodes a text in UTF-8.

  Raises:
    UserError: the text has a surrogate, as Python makes of terminal input that is not UTF-8.
  """
  try:
    return text.encode()
  except UnicodeEncodeError as error:
    raise errors.UserError(
      f'the text has {text[error.start]!r}, which is not a character; give text in UTF-8'
    ) from error


def code_points(text: str) -> np.ndarray:
  """Returns the Unicode code point of each character, uint32 [len(text)]."""
  return np.frombuffer(text.encode('utf-32-le'), np.uint32)


def byte_starts(text: str) -> np.ndarray:
  """Returns the byte at which each character starts in UTF-8, and the end: int64 [N + 1]."""
  codes = code_points(text)
  lengths = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
  return np.concatenate([[0], np.cumsum(lengths)])
