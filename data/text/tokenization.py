"""Tokenizers, trained or read from files: bytes, characters, BPE and WordPiece, stored as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

import errors
import files
from data.text import hugging_face, subword, symbols
from data.text.subword import Subword, Template
from data.text.symbols import SPECIALS, Byte, Character


class Tokenizer(Protocol):
  """Converts text to token ids below `size` and back.

  Attributes:
    size: number of entries in the vocabulary, with specials.
    specials: ids of the special entries, by role (a key of `SPECIALS`, or `start` where the folder
      that it was read from has an entry that begins a text). `encode` returns none of them but
      `unknown`, for text outside the vocabulary: text that looks like a special entry is encoded as
      ordinary text.
    ends: ids at which a sampled text ends; `end` is one of them.
    template: (ids before, ids after) a text that stands alone, as its folder says; None for
      `class` and `separator`, where they are among the specials.
    whole_only: whether the text of the first ids can change with those after them.
  """

  size: int
  specials: Mapping[str, int]
  ends: tuple[int, ...]
  template: Template | None
  whole_only: bool

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
    """Decodes ids to text; `pad` is left out, other specials are shown."""

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
    texts: the texts to train `character`, `bpe` and `wordpiece` on; `wordpiece` iterates over
      them twice, and reads those that can be iterated over only once into memory.
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
  except errors.UserError:
    raise
  except Exception as error:  # the package raises bare Exceptions
    raise errors.UserError(
      f'this is no tokenizer ({_short(error)}); take the tokenizer.json of a run or of a Hugging '
      'Face folder'
    ) from error


def read(path: str) -> Tokenizer:
  """Reads a tokenizer from a folder (a run's, or a Hugging Face one) or from a tokenizer.json.

  A folder has `tokenizer.json`, or `vocab.json` and `merges.txt` (GPT-2), or `vocab.txt` (BERT);
  its other files are read too, see `data.text.hugging_face`. Special entries that no file names are
  recognised if they are written as in `SPECIALS`.

  Raises:
    UserError: there is no tokenizer, or it cannot be read.
  """
  source = files.path(path)
  try:
    if source.is_file():
      return from_json(source.read_text())
    own = source / 'tokenizer.json'
    if own.is_file() and _is_ours(own.read_text()):
      return from_json(own.read_text())
    if (found := hugging_face.read_folder(source)) is not None:
      return found
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


def _is_ours(text: str) -> bool:
  try:
    return 'kind' in json.loads(text)
  except ValueError:  # `from_json` says what is wrong with it
    return True


def _short(error: Exception) -> str:
  return f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'


KINDS = {
  'byte': symbols.train_byte,
  'character': symbols.train_character,
  'bpe': subword.train_bpe,
  'wordpiece': subword.train_wordpiece,
}
# By the `kind` in their JSON.
_OURS = {'byte': Byte, 'character': Character, 'hugging_face': subword.from_settings}
