"""Text to numbers and back: bytes, characters, BPE and WordPiece, each stored as one JSON text."""

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
  """Turns text into ids below `size` and back.

  Attributes:
    size: how many entries the vocabulary has, specials included.
    specials: ids of the special entries there are, by role (a key of `SPECIALS`). Of them `encode`
      gives only `unknown`, for what the vocabulary lacks: text that looks like one is text.
  """

  size: int
  specials: Mapping[str, int]

  def encode(self, text: str) -> np.ndarray:
    """Turns a text into ids int32 [N]; UserError naming a character that the vocabulary lacks."""

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Encodes each text, on all processors where that pays."""

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Encodes a text: (ids int32 [N], int64 [N] the byte of its UTF-8 at which each starts)."""

  def decode(self, ids: Sequence[int]) -> str:
    """Turns ids into text; `pad` is left out, other specials are written as in `SPECIALS`."""

  def token_bytes(self) -> np.ndarray | None:
    """Counts the bytes of text that each entry stands for, int32 [size], 0 for specials.

    None where decoding does not give a text back byte for byte, so that there are no bits per byte.
    """

  def to_json(self) -> str:
    """Writes all that `from_json` needs."""


def train(kind: str, texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  """Trains a new tokenizer; the same texts always give the same one.

  Args:
    kind: a key of `KINDS`.
    texts: what `character`, `bpe` and `wordpiece` learn from; read once.
    vocabulary: entries, specials not counted, that `bpe` and `wordpiece` are trained to; they stop
      earlier where the text gives no more. 0 for the others.
    specials: roles that get an id after the ordinary entries, in this order.

  Raises:
    UserError: no such kind or role, a role named twice, or `vocabulary` is out of range.
  """
  trainer = errors.choose(KINDS, kind, 'config.data.text.tokenizer')
  check_specials(specials)
  return trainer(texts, vocabulary, tuple(specials))


def check_specials(specials: Sequence[str]) -> None:
  """Raises UserError unless these are roles, each named once."""
  for role in specials:
    if role not in SPECIALS:
      raise errors.UserError(
        f'config.data.text.specials: "{role}" is no role of a special entry'
        f'{errors.nearest(role, SPECIALS)}; there are: {", ".join(SPECIALS)}'
      )
  if len(set(specials)) != len(specials):
    raise errors.UserError(f'config.data.text.specials={",".join(specials)} names a role twice')


def from_json(text: str) -> Tokenizer:
  """Makes a tokenizer of what `to_json` gave, or of the text of a Hugging Face tokenizer.json.

  Raises:
    UserError: it is neither.
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
  """Reads the tokenizer in a folder (a run's, or a Hugging Face one) or of a tokenizer.json.

  A folder holds `tokenizer.json`, or `vocab.json` and `merges.txt` (GPT-2), or `vocab.txt` (BERT,
  lower-casing unless its tokenizer_config.json says otherwise). Of the special entries those are
  found that are written as in `SPECIALS`.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  place = files.path(path)
  try:
    for names, reader in _FILES.items():
      if all((place / name).is_file() for name in names):
        return reader(*(place / name for name in names))
    if place.is_file():
      return _read_json(place)
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
_OURS = {'byte': Byte, 'character': Character}  # what `to_json` calls them
_FILES = {
  ('tokenizer.json',): _read_json,
  ('vocab.json', 'merges.txt'): subword.read_gpt2,
  ('vocab.txt',): subword.read_bert,
}
