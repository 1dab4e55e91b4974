"""The texts of a split as one array of token ids, which is encoded once and cached."""

import hashlib
import json
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import errors
from data import arrays, column_files
from data.examples import Examples
from data.folders import cache_dir
from data.own.progress import Progress
from data.spec import Feature
from data.text import tokenization
from data.text.tokenization import Tokenizer

_VERSION = 1  # of the cached arrays; old files are ignored when it is raised
# Documents read at a time: as many as have about so many characters, and no more than that.
_BLOCK, _BLOCK_BYTES = 1024, 4 * 2**20
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
  tokenizer = tokenization.train(kind, _Texts(examples), vocabulary, specials)
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
  folder: pathlib.Path | None = _folder(examples, 'tokens', key, str(kinds))
  features = [name for name in examples.spec.features if name not in _OF_TEXT]
  columns: dict[str, Feature] = {
    'tokens': ((), _smallest(tokenizer.size)),
    'ends': ((), 'int64'),
    **({'kind': ((), 'int8')} if kinds else {}),
    **{name: examples.spec.features[name] for name in features},
  }
  title = f'encoding {examples.spec.name} {examples.spec.split}'

  def blocks_after(rows: Mapping[str, int]) -> Iterator[arrays.Arrays]:
    return _encode(examples, tokenizer, features, kinds, rows)

  try:
    found = column_files.open_or_write(folder, columns, blocks_after, title)
  except OSError as error:
    warnings.warn(f'arrays are not cached: {error}', stacklevel=2)
    folder, found = None, column_files.in_memory(columns, blocks_after)
  return EncodedText(folder, found)


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
  examples: Examples,
  tokenizer: Tokenizer,
  features: list[str],
  kinds: bool,
  rows: Mapping[str, int],
) -> Iterator[arrays.Arrays]:
  """Yields what `EncodedText` holds, some documents at a time.

  Args:
    examples: with the feature `text`.
    tokenizer: to encode with.
    features: names of the other features to keep.
    kinds: whether to compute the kind of each token.
    rows: the entries of each array that are there already; the documents of these are left out.

  Raises:
    UserError: as `encode`.
  """
  end = np.array([id for role, id in tokenizer.specials.items() if role == 'end'], np.int32)
  size = rows['tokens']
  progress = Progress(
    f'encoding {examples.spec.name} {examples.spec.split}', len(examples), 'documents'
  )
  progress.add(rows['ends'])
  for block in _blocks(examples, rows['ends']):
    encoded = {name: block[name] for name in features}
    if kinds:
      each = zip(block['text'], block['kind_start'], block['kind'])
      ids, of_tokens = zip(*(_with_kinds(tokenizer, *document) for document in each))
      encoded['kind'] = _joined(of_tokens, np.full_like(end, -1))
    else:
      ids = tokenizer.encode_all(block['text'].tolist())
    encoded['tokens'] = _joined(ids, end)
    encoded['ends'] = size + np.cumsum([len(each) + len(end) for each in ids], dtype=np.int64)
    size = int(encoded['ends'][-1])
    yield encoded
    progress.add(len(ids))
  if size == len(end) * len(examples):
    raise errors.UserError(
      f'{examples.spec.name} {examples.spec.split} holds no text; choose another split'
    )


def _joined(documents: Sequence[np.ndarray], end: np.ndarray) -> np.ndarray:
  """Concatenates arrays, each followed by `end`."""
  return np.concatenate([part for each in documents for part in (each, end)])


def _with_kinds(
  tokenizer: Tokenizer, text: str, kind_start: np.ndarray, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  ids, starts = tokenizer.offsets(text)
  return ids, kinds_of_tokens(text.encode(), starts, kind_start, kind)


class _Texts:
  """The texts of examples, read anew whenever they are iterated over."""

  def __init__(self, examples: Examples):
    self._examples = examples

  def __iter__(self) -> Iterator[str]:
    return (text for block in _blocks(self._examples) for text in block['text'])


def _blocks(examples: Examples, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
  """Reads examples from number `start` on in blocks of about `_BLOCK_BYTES` of text."""
  size = 1
  while start < len(examples):
    block = examples.read(range(start, min(start + size, len(examples))))
    yield block
    start += len(block['text'])
    held = sum(map(len, block['text']))
    size = max(1, min(2 * size, _BLOCK, size * _BLOCK_BYTES // max(1, held)))


def _folder(examples: Examples, *parts: str) -> pathlib.Path:
  """Returns the folder in the cache of something computed from these examples."""
  key = json.dumps([examples.spec.identity, examples.stamp, _VERSION, *parts])
  return cache_dir() / 'text' / hashlib.sha256(key.encode()).hexdigest()[:24]


def _smallest(size: int) -> type:
  """Returns the smallest dtype that can hold ids below `size`."""
  return next((kind for kind in (np.uint8, np.uint16) if size <= np.iinfo(kind).max + 1), np.int32)
