"""Tokenizers of the `tokenizers` package: BPE and WordPiece, trained or read from files."""

import collections
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import errors
import files
from data.text.symbols import SPECIALS, byte_starts, utf8

_BYTES = 256
_MOST_CHARACTERS = 1000  # in a WordPiece vocabulary; rarer ones become [UNK], as in BERT's own
_CONTINUES = '##'


class Subword:
  """A tokenizer of the `tokenizers` package.

  Args:
    tokenizer: a `tokenizers.Tokenizer`; it is changed to neither truncate, pad nor add specials.
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
    """See `tokenization.Tokenizer`."""
    return self.encode_all([text])[0]

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """See `tokenization.Tokenizer`."""
    for text in texts:
      utf8(text)
    encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, np.int32) for encoding in encodings]

  def offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """See `tokenization.Tokenizer`."""
    if self._bytes is not None:
      ids = self.encode(text)
      lengths = self._bytes[ids].astype(np.int64)
      return ids, np.cumsum(lengths) - lengths
    utf8(text)
    encoding = self._tokenizer.encode(text, add_special_tokens=False)
    characters = np.array([start for start, _ in encoding.offsets], np.int64)
    return np.array(encoding.ids, np.int32), byte_starts(text)[characters]

  def decode(self, ids: Sequence[int]) -> str:
    """See `tokenization.Tokenizer`."""
    kept = [int(id) for id in ids if id != self.specials.get('pad')]
    return self._tokenizer.decode(kept, skip_special_tokens=False)

  def token_bytes(self) -> np.ndarray | None:
    """See `tokenization.Tokenizer`."""
    return self._bytes

  def to_json(self) -> str:
    """See `tokenization.Tokenizer`; Hugging Face's packages read it too, as tokenizer.json."""
    return self._tokenizer.to_str()

  @functools.cached_property
  def _bytes(self) -> np.ndarray | None:
    """The result of `token_bytes`, computed once."""
    from tokenizers import pre_tokenizers

    stored = json.loads(self._tokenizer.to_str())
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    if not _is_lossless(stored) or not set(pre_tokenizers.ByteLevel.alphabet()) <= set(vocabulary):
      return None
    lengths = np.zeros(self.size, np.int32)
    for text, id in vocabulary.items():
      lengths[id] = len(text)  # a byte-level vocabulary writes one character for each byte
    for id, added in self._tokenizer.get_added_tokens_decoder().items():
      lengths[id] = 0 if added.special else len(added.content.encode())
    return lengths


def train_bpe(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Subword:
  """Trains byte-level BPE like GPT-2's (Radford et al. 2019, §2.2); see `tokenization.train`."""
  from tokenizers import pre_tokenizers, trainers

  if vocabulary < _BYTES:
    raise _too_small('bpe', vocabulary, _BYTES, 'every byte is an entry')
  tokenizer = _byte_level()
  tokenizer.train_from_iterator(
    texts,
    trainers.BpeTrainer(
      vocab_size=vocabulary,
      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False,
    ),
  )
  tokenizer.add_special_tokens([SPECIALS[role] for role in specials])
  return Subword(tokenizer)


def train_wordpiece(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Subword:
  """Trains WordPiece like uncased BERT's (Devlin et al. 2018); see `tokenization.train`.

  Text is lower-cased, stripped of accents, and split at punctuation.
  """
  from tokenizers import trainers

  if 'unknown' not in specials:
    raise errors.UserError(
      'config.data.text.tokenizer=wordpiece needs an entry for what its vocabulary lacks; put '
      '"unknown" into config.data.text.specials'
    )
  texts = list(texts)
  tokenizer = _bert({}, lower=True)
  counts = collections.Counter()
  for text in texts:
    counts.update(tokenizer.normalizer.normalize_str(text))
  letters = [letter for letter in counts if not letter.isspace()]
  kept = sorted(sorted(letters, key=lambda letter: (-counts[letter], letter))[:_MOST_CHARACTERS])
  # Each character at the start of a word and inside one. They are given to the trainer because it
  # would number them in the order of a hash table, which differs from run to run.
  alphabet = kept + [_CONTINUES + letter for letter in kept]
  if vocabulary < len(alphabet):
    reason = f'each of {len(kept)} characters is two entries'
    raise _too_small('wordpiece', vocabulary, len(alphabet), reason)
  tokenizer.train_from_iterator(
    texts,
    trainers.WordPieceTrainer(
      vocab_size=vocabulary,
      special_tokens=alphabet,
      initial_alphabet=kept,
      limit_alphabet=len(kept),
      show_progress=False,
    ),
  )
  trained = tokenizer.get_vocab(with_added_tokens=True)
  entries = [*sorted(trained, key=trained.get), *(SPECIALS[role] for role in specials)]
  return Subword(_bert({entry: id for id, entry in enumerate(entries)}, lower=True))


def read_gpt2(vocabulary: files.Path, merges: files.Path) -> Subword:
  """Reads byte-level BPE from a vocab.json and a merges.txt, both local files."""
  from tokenizers import models

  tokenizer = _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
  known = tokenizer.get_vocab()
  tokenizer.add_special_tokens([text for text in SPECIALS.values() if text in known])
  return Subword(tokenizer)


def read_bert(vocabulary: files.Path) -> Subword:
  """Reads WordPiece from a vocab.txt; it is cased if a tokenizer_config.json next to it says so."""
  path = vocabulary.with_name('tokenizer_config.json')
  settings = files.read_json(path) if path.is_file() else {}
  # Not splitlines: a multilingual vocabulary has entries that are other line separators of Unicode.
  lines = vocabulary.read_text().rstrip('\n').split('\n')
  entries = {entry: id for id, entry in enumerate(lines)}
  return Subword(_bert(entries, lower=settings.get('do_lower_case', True)))


def _too_small(kind: str, vocabulary: int, least: int, reason: str) -> errors.UserError:
  return errors.UserError(
    f'config.data.text.vocabulary={vocabulary} is too small for {kind}, where {reason}; choose '
    f'{least} or more'
  )


def _byte_level(model: Any = None) -> Any:
  """Makes a `tokenizers.Tokenizer` like GPT-2's from a BPE model, by default an empty one."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  tokenizer = tokenizers.Tokenizer(model or models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer


def _bert(vocabulary: Mapping[str, int], lower: bool) -> Any:
  """Makes a `tokenizers.Tokenizer` like BERT's with these entries."""
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers

  model = models.WordPiece(dict(vocabulary), unk_token=SPECIALS['unknown'])
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES)
  tokenizer.add_special_tokens([text for text in SPECIALS.values() if text in vocabulary])
  return tokenizer


def _is_lossless(stored: Mapping[str, Any]) -> bool:
  """Returns whether a tokenizer.json is of byte-level BPE that decodes to the same bytes."""
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
