"""Tokenizers, trained or read from files: bytes, characters, BPE and WordPiece, stored as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

import errors
import files
from data.text import subword, symbols
from data.text.subword import Subword
from data.text.symbols import SPECIALS, Byte, Character


class Tokenizer(Protocol):
  """Converts text to token ids below `size` and back.

  Attributes:
    size: number of entries in the vocabulary, with specials.
    specials: ids of the special entries, by role (a key of `SPECIALS`). `encode` returns none of
      them but `unknown`, for text outside the vocabulary: text that looks like a special entry is
      encoded as ordinary text.
  """

  size: int
  specials: Mapping[str, int]

  def encode(self, text: str) -> np.ndarray:
    """Encodes a text as ids int32 [N].

    Raises:
      UserError: the vocabulary lacks a character of the text and has no `unknown`.
    """

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Encodes each text, in parallel where that is faster."""

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Encodes a text: (ids int32 [N], int64 [N] the byte of its UTF-8 at which each starts)."""

  def decode(self, ids: Sequence[int]) -> str:
    """Decodes ids to text; `pad` is left out, other specials are written as in `SPECIALS`."""

  def token_bytes(self) -> np.ndarray | None:
    """Returns the bytes of text that each entry stands for, int32 [size], 0 for specials.

    None if decoding does not restore a text byte for byte, so that bits per byte are not defined.
    """

  def to_json(self) -> str:
    """Converts to the JSON that `from_json` reads."""


def train(kind: str, texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  """Trains a new tokenizer; the same texts always give the same one.

  Args:
    kind: a key of `KINDS`.
    texts: the texts to train `character`, `bpe` and `wordpiece` on; iterated over once.
    vocabulary: size, without specials, that `bpe` and `wordpiece` are trained to; it is smaller if
      the texts do not yield as many entries. 0 for the others.
    specials: roles of special entries, whose ids follow the ordinary entries in this order.

  Raises:
    UserError: the kind or a role is unknown, a role is named twice, or `vocabulary` is out of
      range.
  """
  trainer = errors.choose(KINDS, kind, 'config.data.text.tokenizer')
  check_specials(specials)
  return trainer(texts, vocabulary, tuple(specials))


def check_specials(specials: Sequence[str]) -> None:
  """Raises UserError unless `specials` are roles of special entries, each named once."""
  for role in specials:
    if role not in SPECIALS:
      raise errors.UserError(
        f'config.data.text.specials: "{role}" is no role of a special entry'
        f'{errors.nearest(role, SPECIALS)}; there are: {", ".join(SPECIALS)}'
      )
  if len(set(specials)) != len(specials):
    raise errors.UserError(f'config.data.text.specials={",".join(specials)} names a role twice')


def from_json(text: str) -> Tokenizer:
  """Reads a tokenizer from the JSON of `to_json`, or from that of a Hugging Face tokenizer.json.

  Raises:
    UserError: the JSON is neither.
  """
  try:
    stored = json.loads(text)
    if 'kind' in stored:
      return _OURS[stored.pop('kind')](**stored)
    import tokenizers

    return Subword(tokenizers.Tokenizer.from_str(text))
  except Exception as error:  # the package raises bare Exceptions
    raise errors.UserError(
      f'this is no tokenizer ({_short(error)}); take the tokenizer.json of a run or of a Hugging '
      'Face folder'
    ) from error


def read(path: str) -> Tokenizer:
  """Reads a tokenizer from a folder (a run's, or a Hugging Face one) or from a tokenizer.json.

  A folder has `tokenizer.json`, or `vocab.json` and `merges.txt` (GPT-2), or `vocab.txt` (BERT,
  lower-casing unless its tokenizer_config.json says otherwise). Special entries are recognised if
  they are written as in `SPECIALS`.

  Raises:
    UserError: there is no tokenizer, or it cannot be read.
  """
  source = files.path(path)
  try:
    for names, reader in _FILES.items():
      if all((source / name).is_file() for name in names):
        return reader(*(source / name for name in names))
    if source.is_file():
      return _read_json(source)
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  except Exception as error:  # the package raises bare Exceptions
    raise errors.UserError(
      f'{path} holds a tokenizer that cannot be read ({_short(error)}); take the whole folder of a '
      'run or of a Hugging Face model'
    ) from error
  raise errors.UserError(
    f'{path} holds no tokenizer; name a folder with tokenizer.json, with vocab.json and '
    'merges.txt, or with vocab.txt'
  )


def _read_json(path: files.Path) -> Tokenizer:
  return from_json(path.read_text())


def _short(error: Exception) -> str:
  return f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'


KINDS = {
  'byte': symbols.train_byte,
  'character': symbols.train_character,
  'bpe': subword.train_bpe,
  'wordpiece': subword.train_wordpiece,
}
_OURS = {'byte': Byte, 'character': Character}  # by the `kind` in their JSON
_FILES = {
  ('tokenizer.json',): _read_json,
  ('vocab.json', 'merges.txt'): subword.read_gpt2,
  ('vocab.txt',): subword.read_bert,
}
