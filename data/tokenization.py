"""Text to numbers and back: bytes, characters, BPE and WordPiece, each stored as one JSON text."""

import collections
import functools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

import errors

# Special entries by role, and how each is written: as GPT-2 and BERT write them.
SPECIALS = {
  'end': '<|endoftext|>',
  'pad': '[PAD]',
  'unknown': '[UNK]',
  'mask': '[MASK]',
  'class': '[CLS]',
  'separator': '[SEP]',
}
_BYTES = 256
_MOST_CHARACTERS = 1000  # in a WordPiece vocabulary; rarer ones become [UNK], as in BERT's own
_CONTINUES = '##'


class Tokenizer(Protocol):
  """Turns text into ids below `size` and back.

  Attributes:
    size: how many entries the vocabulary has, specials included.
    specials: ids of the special entries there are, by role (a key of `SPECIALS`). `encode` never
      gives them, but `unknown` for what the vocabulary lacks: text that looks like one is text.
  """

  size: int
  specials: Mapping[str, int]

  def encode(self, text: str) -> np.ndarray:
    """Returns int32 [N]; UserError naming a character that the vocabulary lacks."""

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns `encode` of each text, on all processors where that pays."""

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (ids int32 [N], int64 [N] the byte of the text's UTF-8 at which each starts)."""

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text; `pad` is left out, other specials are written as in `SPECIALS`."""

  def token_bytes(self) -> np.ndarray | None:
    """Returns int32 [size], bytes of text each entry stands for, 0 for specials.

    None where text cannot be had back byte for byte, so that there are no bits per byte.
    """

  def to_json(self) -> str:
    """Returns all that `from_json` needs."""


def train(kind: str, texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  """Returns a new tokenizer; the same texts always give the same one.

  Args:
    kind: a key of `KINDS`.
    texts: what `character`, `bpe` and `wordpiece` learn from; read once.
    vocabulary: entries, specials not counted, that `bpe` and `wordpiece` are trained to; they stop
      earlier where the text gives no more. 0 for the others.
    specials: roles that get an id after the ordinary entries, in this order.

  Raises:
    UserError: no such kind or role, a role named twice, or `vocabulary` is out of range.
  """
  if kind not in KINDS:
    raise errors.UserError(
      f'"{kind}" is no kind of tokenizer{errors.nearest(kind, KINDS)}; there are: '
      f'{", ".join(KINDS)}.'
    )
  check_specials(specials)
  return KINDS[kind](texts, vocabulary, tuple(specials))


def check_specials(specials: Sequence[str]) -> None:
  """Raises UserError unless these are roles, each named once."""
  for role in specials:
    if role not in SPECIALS:
      raise errors.UserError(
        f'config.data.text.specials: "{role}" is no role of a special entry'
        f'{errors.nearest(role, SPECIALS)}; there are: {", ".join(SPECIALS)}.'
      )
  if len(set(specials)) != len(specials):
    raise errors.UserError(f'config.data.text.specials={",".join(specials)} names a role twice.')


def from_json(text: str) -> Tokenizer:
  """Returns the tokenizer that `to_json` gave, or of the text of a Hugging Face tokenizer.json.

  Raises:
    UserError: it is neither.
  """
  try:
    stored = json.loads(text)
    if stored.get('kind') == 'byte':
      return Byte(stored['specials'])
    if stored.get('kind') == 'character':
      return Character(stored['characters'], stored['specials'])
    import tokenizers

    return Subword(tokenizers.Tokenizer.from_str(text))
  except Exception as error:  # the package raises bare Exceptions
    raise errors.UserError(
      f'This is no tokenizer ({_short(error)}): take the tokenizer.json of a run or of a Hugging '
      'Face folder.'
    ) from error


def read(path: str) -> Tokenizer:
  """Returns the tokenizer in a folder (a run's, or a Hugging Face one) or of a tokenizer.json.

  A folder holds `tokenizer.json`, or `vocab.json` and `merges.txt` (GPT-2), or `vocab.txt` (BERT,
  lower-casing unless its tokenizer_config.json says otherwise). Of the special entries those are
  found that are written as in `SPECIALS`.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  place = pathlib.Path(path).expanduser()
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
      f'{path} holds a tokenizer that cannot be read ({_short(error)}): take the whole folder of a '
      'run or of a Hugging Face model.'
    ) from error
  raise errors.UserError(
    f'{path} holds no tokenizer: name a folder with tokenizer.json, with vocab.json and '
    'merges.txt, or with vocab.txt.'
  )


class _Symbols:
  """A tokenizer whose every entry is written one way, wherever it stands.

  Args:
    entries: the bytes of the ordinary entries.
    specials: roles of the entries after them.
  """

  def __init__(self, entries: Sequence[bytes], specials: Sequence[str]):
    self.size = len(entries) + len(specials)
    self.specials = {role: len(entries) + i for i, role in enumerate(specials)}
    shown = [b'' if role == 'pad' else SPECIALS[role].encode() for role in specials]
    self._written = [*entries, *shown]

  def decode(self, ids: Sequence[int]) -> str:
    """See `Tokenizer`; bytes that are no UTF-8 become �."""
    return b''.join(self._written[int(id)] for id in ids).decode(errors='replace')

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """See `Tokenizer`."""
    return [self.encode(text) for text in texts]

  def token_bytes(self) -> np.ndarray | None:
    """See `Tokenizer`."""
    lengths = np.array([len(entry) for entry in self._written], np.int32)
    lengths[self.size - len(self.specials) :] = 0
    return lengths


class Byte(_Symbols):
  """The bytes of UTF-8: ids 0 to 255, then the specials."""

  def __init__(self, specials: Sequence[str]):
    super().__init__([bytes([value]) for value in range(_BYTES)], specials)

  def encode(self, text: str) -> np.ndarray:
    """See `Tokenizer`; there is no text that it lacks a byte for."""
    return np.frombuffer(_utf8(text), np.uint8).astype(np.int32)

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """See `Tokenizer`."""
    ids = self.encode(text)
    return ids, np.arange(len(ids))

  def to_json(self) -> str:
    """See `Tokenizer`."""
    return json.dumps({'kind': 'byte', 'specials': list(self.specials)})


class Character(_Symbols):
  """Unicode characters.

  Args:
    characters: the vocabulary in order, each character once.
    specials: with `unknown` among them, every other character gets its id.
  """

  def __init__(self, characters: str, specials: Sequence[str]):
    super().__init__([character.encode() for character in characters], specials)
    self._characters = characters
    codes = _code_points(characters)
    # The last place is for everything above the highest code point.
    self._ids = np.full(int(codes.max(initial=0)) + 2, self.specials.get('unknown', -1), np.int32)
    self._ids[codes] = np.arange(len(characters))

  def encode(self, text: str) -> np.ndarray:
    """See `Tokenizer`."""
    _utf8(text)
    codes = _code_points(text)
    ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
    if (ids < 0).any():
      at = int(np.argmax(ids < 0))
      raise errors.UserError(
        f'The vocabulary of {len(self._characters)} characters lacks {text[at]!r}, character '
        f'{at + 1:,} of {text[:30]!r}…: leave it out, or train with config.data.text.tokenizer='
        'byte or with "unknown" in config.data.text.specials.'
      )
    return ids

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """See `Tokenizer`."""
    return self.encode(text), _byte_starts(text)[:-1]

  def token_bytes(self) -> np.ndarray | None:
    """See `Tokenizer`."""
    return None if 'unknown' in self.specials else super().token_bytes()

  def to_json(self) -> str:
    """See `Tokenizer`."""
    stored = {'kind': 'character', 'characters': self._characters, 'specials': [*self.specials]}
    return json.dumps(stored)


class Subword:
  """A tokenizer of the `tokenizers` package.

  Args:
    tokenizer: a `tokenizers.Tokenizer`; it is changed to neither cut, pad nor add anything.
  """

  def __init__(self, tokenizer: Any):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # text that looks like a special entry stays text
    self._tokenizer = tokenizer
    self.size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    ids = {role: tokenizer.token_to_id(text) for role, text in SPECIALS.items()}
    self.specials = {role: id for role, id in ids.items() if id is not None}

  def encode(self, text: str) -> np.ndarray:
    """See `Tokenizer`."""
    return self.encode_all([text])[0]

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """See `Tokenizer`."""
    for text in texts:
      _utf8(text)
    found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(one.ids, np.int32) for one in found]

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """See `Tokenizer`."""
    if self._bytes is not None:
      ids = self.encode(text)
      lengths = self._bytes[ids].astype(np.int64)
      return ids, np.cumsum(lengths) - lengths
    _utf8(text)
    found = self._tokenizer.encode(text, add_special_tokens=False)
    characters = np.array([start for start, _ in found.offsets], np.int64)
    return np.array(found.ids, np.int32), _byte_starts(text)[characters]

  def decode(self, ids: Sequence[int]) -> str:
    """See `Tokenizer`."""
    kept = [int(id) for id in ids if id != self.specials.get('pad')]
    return self._tokenizer.decode(kept, skip_special_tokens=False)

  def token_bytes(self) -> np.ndarray | None:
    """See `Tokenizer`."""
    return self._bytes

  def to_json(self) -> str:
    """See `Tokenizer`; it is a tokenizer.json that Hugging Face's packages read too."""
    return self._tokenizer.to_str()

  @functools.cached_property
  def _bytes(self) -> np.ndarray | None:
    from tokenizers import pre_tokenizers

    stored = json.loads(self._tokenizer.to_str())
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    if not _lossless(stored) or not set(pre_tokenizers.ByteLevel.alphabet()) <= set(vocabulary):
      return None
    lengths = np.zeros(self.size, np.int32)
    for text, id in vocabulary.items():
      lengths[id] = len(text)  # of such a vocabulary, a character is written for each byte
    for id, added in self._tokenizer.get_added_tokens_decoder().items():
      lengths[id] = 0 if added.special else len(added.content.encode())
    return lengths


def _train_byte(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  _none_wanted('byte', vocabulary)
  return Byte(specials)


def _train_character(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  _none_wanted('character', vocabulary)
  return Character(''.join(sorted(set().union(*map(set, texts)))), specials)


def _train_bpe(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  """Byte-level BPE as GPT-2's (Radford et al. 2019, §2.2)."""
  from tokenizers import pre_tokenizers, trainers

  if vocabulary < _BYTES:
    raise _too_small('bpe', vocabulary, _BYTES, 'every byte is an entry')
  made = _byte_level()
  made.train_from_iterator(
    texts,
    trainers.BpeTrainer(
      vocab_size=vocabulary,
      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False,
    ),
  )
  made.add_special_tokens([SPECIALS[role] for role in specials])
  return Subword(made)


def _train_wordpiece(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Tokenizer:
  """WordPiece as uncased BERT's (Devlin et al. 2018): lower case, no accents, split at signs."""
  from tokenizers import trainers

  if 'unknown' not in specials:
    raise errors.UserError(
      'config.data.text.tokenizer=wordpiece needs an entry for what its vocabulary lacks: put '
      '"unknown" into config.data.text.specials.'
    )
  texts = list(texts)
  made = _bert({}, lower=True)
  counts = collections.Counter()
  for text in texts:
    counts.update(made.normalizer.normalize_str(text))
  letters = [letter for letter in counts if not letter.isspace()]
  kept = sorted(sorted(letters, key=lambda letter: (-counts[letter], letter))[:_MOST_CHARACTERS])
  # Alone and inside a word. Left to find them itself, the trainer numbers them in the order of a
  # hash table, which differs from run to run.
  alphabet = kept + [_CONTINUES + letter for letter in kept]
  if vocabulary < len(alphabet):
    reason = f'each of {len(kept)} characters is two entries'
    raise _too_small('wordpiece', vocabulary, len(alphabet), reason)
  made.train_from_iterator(
    texts,
    trainers.WordPieceTrainer(
      vocab_size=vocabulary,
      special_tokens=alphabet,
      initial_alphabet=kept,
      limit_alphabet=len(kept),
      show_progress=False,
    ),
  )
  found = made.get_vocab(with_added_tokens=True)
  entries = [*sorted(found, key=found.get), *(SPECIALS[role] for role in specials)]
  return Subword(_bert({entry: id for id, entry in enumerate(entries)}, lower=True))


def _none_wanted(kind: str, vocabulary: int) -> None:
  if vocabulary:
    raise errors.UserError(
      f'config.data.text.vocabulary={vocabulary} is for the tokenizers that are trained to a size, '
      f'bpe and wordpiece: set it to 0 for {kind}.'
    )


def _too_small(kind: str, vocabulary: int, least: int, reason: str) -> errors.UserError:
  return errors.UserError(
    f'config.data.text.vocabulary={vocabulary} is too small for {kind}, where {reason}: choose '
    f'{least} or more.'
  )


def _byte_level(model: Any = None) -> Any:
  """A `tokenizers.Tokenizer` of GPT-2's kind around a BPE model, an empty one if not given."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  made = tokenizers.Tokenizer(model or models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  return made


def _bert(vocabulary: Mapping[str, int], lower: bool) -> Any:
  """A `tokenizers.Tokenizer` of BERT's kind with these entries."""
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers

  model = models.WordPiece(dict(vocabulary), unk_token=SPECIALS['unknown'])
  made = tokenizers.Tokenizer(model)
  made.normalizer = normalizers.BertNormalizer(lowercase=lower)
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  made.decoder = decoders.WordPiece(prefix=_CONTINUES)
  made.add_special_tokens([text for text in SPECIALS.values() if text in vocabulary])
  return made


def _read_json(path: pathlib.Path) -> Tokenizer:
  return from_json(path.read_text())


def _read_gpt2(vocabulary: pathlib.Path, merges: pathlib.Path) -> Tokenizer:
  from tokenizers import models

  made = _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
  known = made.get_vocab()
  made.add_special_tokens([text for text in SPECIALS.values() if text in known])
  return Subword(made)


def _read_bert(vocabulary: pathlib.Path) -> Tokenizer:
  settings = vocabulary.with_name('tokenizer_config.json')
  stored = json.loads(settings.read_text()) if settings.is_file() else {}
  entries = {entry: id for id, entry in enumerate(vocabulary.read_text().splitlines())}
  return Subword(_bert(entries, lower=stored.get('do_lower_case', True)))


def _lossless(stored: Mapping[str, Any]) -> bool:
  """Whether a tokenizer.json is of byte-level BPE that changes and drops nothing."""
  before = stored.get('pre_tokenizer') or {}
  parts = before.get('pretokenizers', [before])
  return (
    stored['model'].get('type') == 'BPE'
    and not stored.get('normalizer')
    and (stored.get('decoder') or {}).get('type') == 'ByteLevel'
    and all(
      (part.get('type') == 'Split' and part['behavior'] != 'Removed')
      or (part.get('type') == 'ByteLevel' and not part['add_prefix_space'])
      for part in parts
    )
  )


def _utf8(text: str) -> bytes:
  try:
    return text.encode()
  except UnicodeEncodeError as error:  # what a terminal gives for bytes that are no UTF-8
    raise errors.UserError(
      f'The text holds {text[error.start]!r}, which is no character: give text in UTF-8.'
    ) from error


def _code_points(text: str) -> np.ndarray:
  return np.frombuffer(text.encode('utf-32-le'), np.uint32)


def _byte_starts(text: str) -> np.ndarray:
  """int64 [len(text) + 1]: where each character starts in UTF-8, and the end."""
  codes = _code_points(text)
  lengths = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
  return np.concatenate([[0], np.cumsum(lengths)])


def _short(error: Exception) -> str:
  return f'{type(error).__name__}: {str(error)[:120]}'


KINDS = {
  'byte': _train_byte,
  'character': _train_character,
  'bpe': _train_bpe,
  'wordpiece': _train_wordpiece,
}
_FILES = {
  ('tokenizer.json',): _read_json,
  ('vocab.json', 'merges.txt'): _read_gpt2,
  ('vocab.txt',): _read_bert,
}
