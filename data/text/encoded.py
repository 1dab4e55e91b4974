"""The texts of a split as one long array of ids, made once and kept in the cache."""

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

_VERSION = 1  # of what is kept; a higher one makes old files unused
_BLOCK = 256  # documents read at a time
_WHITESPACE = np.frombuffer(b' \t\n\r\f\v', np.uint8)
# Features of the text itself; all others are kept for each document.
_OF_TEXT = ('text', 'kind_start', 'kind')


class Encoded:
  """The documents of a split as ids, one after another; read where they lie, not into memory.

  Attributes:
    tokens: unsigned or int32 [L], the ids; where the tokenizer has the special `end`, it comes
      after every document and belongs to it.
    ends: int64 [N], where each document ends.
    kind: int8 [L], the kind of each token, -1 for a special; None if not requested.
    features: name -> [N], the other features of each document, e.g. `label`.
  """

  def __init__(self, folder: pathlib.Path | None, held: dict[str, np.ndarray]):
    """Takes the arrays `held`, which also lie in `folder`, None where they could not be kept."""
    self._folder = folder
    self._names = [*held]
    self._held: dict[str, np.ndarray] | None = held

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
    return {**self.__dict__, '_held': None if self._folder else self._held}

  def _arrays(self) -> dict[str, np.ndarray]:
    if self._held is None:
      files = {name: self._folder / f'{name}.npy' for name in self._names}
      self._held = {name: np.load(path, mmap_mode='r') for name, path in files.items()}
    return self._held


def train_tokenizer(
  examples: Examples, kind: str, vocabulary: int, specials: Sequence[str]
) -> Tokenizer:
  """Trains a tokenizer on the texts of a split, or takes it from the cache if that was done before.

  Args:
    examples: with the feature `text`.
    kind, vocabulary, specials: see `tokenization.train`.
  """
  folder = _folder(examples, 'tokenizer', kind, str(vocabulary), *specials)
  found = arrays.kept(folder, ['json'])
  if found is not None:
    return tokenization.from_json(found['json'].tobytes().decode())
  texts = (text for block in _blocks(examples) for text in block['text'])
  made = tokenization.train(kind, texts, vocabulary, specials)
  arrays.keep(folder, {'json': np.frombuffer(made.to_json().encode(), np.uint8)})
  return made


def encode(examples: Examples, tokenizer: Tokenizer, key: str, kinds: bool) -> Encoded:
  """Encodes the documents of a split as ids, or takes them from the cache where they are whole.

  Args:
    examples: with the feature `text`, and where `kinds` is set `kind_start` and `kind`.
    tokenizer: whose ids these are.
    key: a key of the tokenizer.
    kinds: whether to keep the kind of each token.

  Raises:
    UserError: there is no text at all, or a character that the tokenizer lacks.
  """
  folder = _folder(examples, 'tokens', key, str(kinds))
  features = [name for name in examples.spec.features if name not in _OF_TEXT]
  names = ['tokens', 'ends', *(['kind'] if kinds else []), *features]
  found = arrays.kept(folder, names, mapped=True)
  if found is None:
    made = _encode(examples, tokenizer, features, kinds)
    found = arrays.keep(folder, made) and arrays.kept(folder, names, mapped=True)
  return Encoded(folder, found) if found else Encoded(None, made)


def kinds_of_tokens(
  text: bytes, starts: np.ndarray, kind_start: np.ndarray, kind: np.ndarray
) -> np.ndarray:
  """Finds the kind of each token, int8 [N]: that of its first byte that is not whitespace.

  A token of whitespace alone has the kind of its first byte.

  Args:
    text: in UTF-8.
    starts: [N], the byte at which each token starts, in order.
    kind_start: [M], the byte at which each stretch of one kind starts, the first at 0.
    kind: [M], that kind.
  """
  raw = np.frombuffer(text, np.uint8)
  visible = np.append(np.flatnonzero(~np.isin(raw, _WHITESPACE)), len(raw))
  first = visible[np.searchsorted(visible[:-1], starts)]
  stops = np.append(starts[1:], len(raw))
  places = np.where(first < stops, first, starts)
  return kind[np.searchsorted(kind_start, places, side='right') - 1].astype(np.int8)


def _encode(
  examples: Examples, tokenizer: Tokenizer, features: list[str], kinds: bool
) -> dict[str, np.ndarray]:
  end = np.array([id for role, id in tokenizer.specials.items() if role == 'end'], np.int32)
  dtype = _smallest(tokenizer.size)
  found: dict[str, list[np.ndarray]] = {name: [] for name in ('tokens', 'kind', *features)}
  lengths: list[int] = []
  for block in _blocks(examples):
    if kinds:
      pairs = zip(block['text'], block['kind_start'], block['kind'])
      ids, of_tokens = zip(*(_with_kinds(tokenizer, *each) for each in pairs))
      found['kind'] += [np.concatenate([each, np.full_like(end, -1)]) for each in of_tokens]
    else:
      ids = tokenizer.encode_all(block['text'].tolist())
    found['tokens'] += [np.concatenate([each, end]).astype(dtype) for each in ids]
    lengths += [len(each) + len(end) for each in ids]
    for name in features:
      found[name].append(block[name])
  ends = np.cumsum(lengths, dtype=np.int64)
  if ends[-1] == len(end) * len(lengths):
    raise errors.UserError(
      f'{examples.spec.name} {examples.spec.split} holds no text; choose another split'
    )
  made = {name: np.concatenate(parts) for name, parts in found.items() if parts}
  if kinds:
    made['kind'] = made['kind'].astype(np.int8)
  return {**made, 'ends': ends}


def _with_kinds(
  tokenizer: Tokenizer, text: str, kind_start: np.ndarray, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  ids, starts = tokenizer.offsets(text)
  return ids, kinds_of_tokens(text.encode(), starts, kind_start, kind)


def _blocks(examples: Examples) -> Iterator[dict[str, np.ndarray]]:
  for block in blocks(len(examples), _BLOCK):
    yield examples.read(block)


def _folder(examples: Examples, *parts: str) -> pathlib.Path:
  """The folder in which something made from these examples is kept."""
  key = json.dumps([examples.spec.identity, examples.stamp, _VERSION, *parts])
  return cache_dir() / 'text' / hashlib.sha256(key.encode()).hexdigest()[:24]


def _smallest(size: int) -> type:
  """The dtype of ids below `size` that takes the least memory."""
  return next((kind for kind in (np.uint8, np.uint16) if size <= np.iinfo(kind).max + 1), np.int32)
