"""The texts of a split as one array of token ids, which is encoded once and cached."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import errors
from data import arrays
from data.examples import Examples, blocks
from data.folders import cache_dir
from data.text import tokenization
from data.text.tokenization import Tokenizer

_VERSION = 1  # of the cached arrays; old files are ignored when it is raised
_BLOCK = 256  # documents read at a time
_WHITESPACE = np.frombuffer(b' \t\n\r\f\v', np.uint8)
# Features of the text itself; the other features belong to a document.
_OF_TEXT = ('text', 'kind_start', 'kind')


class EncodedText:
  """The documents of a split as ids, concatenated; memory-mapped where they could be cached.

  Args:
    folder: the folder in the cache that has the arrays too; None if they could not be written.
    loaded: the attributes below and the other features, by name.

  Attributes:
    tokens: unsigned or int32 [L], the ids; if the tokenizer has the special `end`, it comes after
      every document and belongs to it.
    ends: int64 [N], where each document ends.
    kind: int8 [L], the kind of each token, -1 for a special; None if not requested.
    features: name -> [N], the other features of each document, e.g. `label`.
  """

  def __init__(self, folder: pathlib.Path | None, loaded: dict[str, np.ndarray]):
    self._folder = folder
    self._names = [*loaded]
    self._loaded: dict[str, np.ndarray] | None = loaded

  @property
  def tokens(self) -> np.ndarray:
    return self._arrays()['tokens']

  @property
  def ends(self) -> np.ndarray:
    return self._arrays()['ends']

  @property
  def kind(self) -> np.ndarray | None:
    return self._arrays().get('kind')

  @property
  def features(self) -> dict[str, np.ndarray]:
    own = ('tokens', 'ends', 'kind')
    return {name: values for name, values in self._arrays().items() if name not in own}

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes open the files themselves.
    return {**self.__dict__, '_loaded': None if self._folder else self._loaded}

  def _arrays(self) -> dict[str, np.ndarray]:
    if self._loaded is None:
      files = {name: self._folder / f'{name}.npy' for name in self._names}
      self._loaded = {name: np.load(path, mmap_mode='r') for name, path in files.items()}
    return self._loaded


def train_tokenizer(
  examples: Examples, kind: str, vocabulary: int, specials: Sequence[str]
) -> Tokenizer:
  """Trains a tokenizer on the texts of a split, or reads it from the cache.

  Args:
    examples: examples with the feature `text`.
    kind, vocabulary, specials: see `tokenization.train`.
  """
  folder = _folder(examples, 'tokenizer', kind, str(vocabulary), *specials)
  cached = arrays.read(folder, ['json'])
  if cached is not None:
    return tokenization.from_json(cached['json'].tobytes().decode())
  texts = (text for block in _blocks(examples) for text in block['text'])
  tokenizer = tokenization.train(kind, texts, vocabulary, specials)
  arrays.write(folder, {'json': np.frombuffer(tokenizer.to_json().encode(), np.uint8)})
  return tokenizer


def encode(examples: Examples, tokenizer: Tokenizer, key: str, kinds: bool) -> EncodedText:
  """Encodes the documents of a split as ids, or reads these from the cache.

  Args:
    examples: examples with the feature `text`, and with `kinds` also `kind_start` and `kind`.
    tokenizer: the tokenizer to encode with.
    key: a hash of the tokenizer.
    kinds: whether to compute the kind of each token.

  Raises:
    UserError: the texts are all empty, or have a character that the tokenizer lacks.
  """
  folder = _folder(examples, 'tokens', key, str(kinds))
  features = [name for name in examples.spec.features if name not in _OF_TEXT]
  names = ['tokens', 'ends', *(['kind'] if kinds else []), *features]
  cached = arrays.read(folder, names, mapped=True)
  if cached is None:
    encoded = _encode(examples, tokenizer, features, kinds)
    cached = arrays.write(folder, encoded) and arrays.read(folder, names, mapped=True)
  return EncodedText(folder, cached) if cached else EncodedText(None, encoded)


def kinds_of_tokens(
  text: bytes, starts: np.ndarray, kind_start: np.ndarray, kind: np.ndarray
) -> np.ndarray:
  """Returns the kind of each token, int8 [N]: that of its first byte that is not whitespace.

  A token that is all whitespace has the kind of its first byte.

  Args:
    text: the text in UTF-8.
    starts: [N], the byte at which each token starts, in order.
    kind_start: [M], the byte at which each span of one kind starts, the first at 0.
    kind: [M], the kind of each span.
  """
  raw = np.frombuffer(text, np.uint8)
  visible = np.append(np.flatnonzero(~np.isin(raw, _WHITESPACE)), len(raw))
  first = visible[np.searchsorted(visible[:-1], starts)]
  stops = np.append(starts[1:], len(raw))
  positions = np.where(first < stops, first, starts)
  return kind[np.searchsorted(kind_start, positions, side='right') - 1].astype(np.int8)


def _encode(
  examples: Examples, tokenizer: Tokenizer, features: list[str], kinds: bool
) -> dict[str, np.ndarray]:
  end = np.array([id for role, id in tokenizer.specials.items() if role == 'end'], np.int32)
  dtype = _smallest(tokenizer.size)
  parts: dict[str, list[np.ndarray]] = {name: [] for name in ('tokens', 'kind', *features)}
  lengths: list[int] = []
  for block in _blocks(examples):
    if kinds:
      pairs = zip(block['text'], block['kind_start'], block['kind'])
      ids, of_tokens = zip(*(_with_kinds(tokenizer, *each) for each in pairs))
      parts['kind'] += [np.concatenate([each, np.full_like(end, -1)]) for each in of_tokens]
    else:
      ids = tokenizer.encode_all(block['text'].tolist())
    parts['tokens'] += [np.concatenate([each, end]).astype(dtype) for each in ids]
    lengths += [len(each) + len(end) for each in ids]
    for name in features:
      parts[name].append(block[name])
  ends = np.cumsum(lengths, dtype=np.int64)
  if ends[-1] == len(end) * len(lengths):
    raise errors.UserError(
      f'{examples.spec.name} {examples.spec.split} holds no text; choose another split'
    )
  encoded = {name: np.concatenate(each) for name, each in parts.items() if each}
  if kinds:
    encoded['kind'] = encoded['kind'].astype(np.int8)
  return {**encoded, 'ends': ends}


def _with_kinds(
  tokenizer: Tokenizer, text: str, kind_start: np.ndarray, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  ids, starts = tokenizer.offsets(text)
  return ids, kinds_of_tokens(text.encode(), starts, kind_start, kind)


def _blocks(examples: Examples) -> Iterator[dict[str, np.ndarray]]:
  for block in blocks(len(examples), _BLOCK):
    yield examples.read(block)


def _folder(examples: Examples, *parts: str) -> pathlib.Path:
  """Returns the folder in the cache of something computed from these examples."""
  key = json.dumps([examples.spec.identity, examples.stamp, _VERSION, *parts])
  return cache_dir() / 'text' / hashlib.sha256(key.encode()).hexdigest()[:24]


def _smallest(size: int) -> type:
  """Returns the smallest dtype that can hold ids below `size`."""
  return next((kind for kind in (np.uint8, np.uint16) if size <= np.iinfo(kind).max + 1), np.int32)
