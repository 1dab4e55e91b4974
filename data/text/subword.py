"""Tokenizers of the `tokenizers` package: BPE and WordPiece, trained or read from files."""

import collections
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import errors
from data.text.symbols import SPECIALS, byte_starts, utf8

_BYTES = 256
_MOST_CHARACTERS = 1000  # in a WordPiece vocabulary; rarer ones become [UNK], as in BERT's own
_CONTINUES = '##'
# The roles of special entries by transformers' names, in the order in which it adds them.
NAMES = {
  'start': 'bos_token',
  'end': 'eos_token',
  'unknown': 'unk_token',
  'separator': 'sep_token',
  'pad': 'pad_token',
  'class': 'cls_token',
  'mask': 'mask_token',
}
# The spaces that transformers removes from a decoded text, in this order.
_CLEANED = {
  ' .': '.', ' ?': '?', ' !': '!', ' ,': ',', " ' ": "'", " n't": "n't", " 'm": "'m", " 's": "'s",
  " 've": "'ve", " 're": "'re",
}  # fmt: skip


# The ids before and after a text that stands alone.
Template: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


class Settings(NamedTuple):
  """The settings of a Hugging Face tokenizer that stand outside tokenizer.json.

  Attributes:
    tokens: texts of special entries by transformers' names (the values of `NAMES`), None for those
      that there are none of. An entry that is left out is the one that is written as in `SPECIALS`.
    extra: texts of further special entries, without a role.
    ends: ids at which a text ends; empty for that of `eos_token`.
    start: id that a text without a prompt begins with; None for that of `bos_token`.
    pad: id of padding where `pad_token` has none.
    clean_up: whether decoding removes the spaces before punctuation.
  """

  tokens: Mapping[str, str | None] = {}
  extra: tuple[str, ...] = ()
  ends: tuple[int, ...] = ()
  start: int | None = None
  pad: int | None = None
  clean_up: bool = False


_PLAIN = Settings()


class Subword:
  """A tokenizer of the `tokenizers` package.

  Args:
    tokenizer: a `tokenizers.Tokenizer`; it is changed to neither truncate, pad nor add specials.
    settings: of the folder that it was read from.
  """

  def __init__(self, tokenizer: Any, settings: Settings = _PLAIN):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # text that looks like a special entry stays text
    self._tokenizer = tokenizer
    self.settings = settings
    self.size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    self.specials = self._find_specials()
    end = self.specials.get('end')
    self.ends = settings.ends or (() if end is None else (end,))
    processor = tokenizer.post_processor
    self.template = None if processor is None else _template(json.loads(processor.__getstate__()))
    self.whole_only = settings.clean_up

  def named_ids(self) -> dict[str, int]:
    """Returns the ids of special entries by transformers' names."""
    ids = {name: self._id(self._text(role)) for role, name in NAMES.items()}
    return {name: id for name, id in ids.items() if id is not None}

  def token(self, id: int) -> str:
    """Returns an entry as it is stored."""
    return self._tokenizer.id_to_token(id)

  def _text(self, role: str) -> str | None:
    return self.settings.tokens.get(NAMES[role], SPECIALS.get(role))

  def _id(self, text: str | None) -> int | None:
    return None if text is None else self._tokenizer.token_to_id(text)

  def _find_specials(self) -> dict[str, int]:
    ends, start, pad = self.settings.ends, self.settings.start, self.settings.pad
    ids = {role: self._id(self._text(role)) for role in (*SPECIALS, 'start')}
    if ends and ids['end'] not in ends:
      ids['end'] = ends[0]
    ids['start'] = ids['start'] if start is None else start
    ids['pad'] = pad if ids['pad'] is None else ids['pad']
    # GPT-2 has one token for all of these, and is never padded or unknown for it.
    shared = [role for role in ('start', 'pad', 'unknown') if ids[role] == ids['end']]
    return {role: id for role, id in ids.items() if id is not None and role not in shared}

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
    text = self._tokenizer.decode(kept, skip_special_tokens=False)
    for spaced, cleaned in _CLEANED.items() if self.settings.clean_up else ():
      text = text.replace(spaced, cleaned)
    return text

  def token_bytes(self) -> np.ndarray | None:
    """See `tokenization.Tokenizer`."""
    return self._bytes

  def to_json(self) -> str:
    """See `tokenization.Tokenizer`; without settings it is a tokenizer.json of Hugging Face's."""
    text = self._tokenizer.to_str()
    if self.settings == _PLAIN:
      return text
    stored = {'kind': 'hugging_face', 'settings': self.settings._asdict()}
    return json.dumps({**stored, 'tokenizer': json.loads(text)}, ensure_ascii=False)

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
  tokenizer = byte_level()
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
  texts = list(texts) if iter(texts) is texts else texts
  tokenizer = bert({}, lowercase=True)
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
  return Subword(bert({entry: id for id, entry in enumerate(entries)}, lowercase=True))


def from_settings(tokenizer: Mapping[str, Any], settings: Mapping[str, Any]) -> Subword:
  """Reads what `Subword.to_json` writes of a tokenizer with settings."""
  import tokenizers

  lists = {name: tuple(settings[name]) for name in ('extra', 'ends')}
  return Subword(
    tokenizers.Tokenizer.from_str(json.dumps(tokenizer)), Settings(**{**settings, **lists})
  )


def _too_small(kind: str, vocabulary: int, least: int, reason: str) -> errors.UserError:
  return errors.UserError(
    f'config.data.text.vocabulary={vocabulary} is too small for {kind}, where {reason}; choose '
    f'{least} or more'
  )


def byte_level(model: Any = None, add_prefix_space: bool = False) -> Any:
  """A `tokenizers.Tokenizer` of GPT-2's kind with a BPE model, by default an empty one."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  tokenizer = tokenizers.Tokenizer(model or models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer


def bert(vocabulary: Mapping[str, int], unknown: str = SPECIALS['unknown'], **options: Any) -> Any:
  """A `tokenizers.Tokenizer` of BERT's kind with these entries and options of its normalizer."""
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers

  tokenizer = tokenizers.Tokenizer(models.WordPiece(dict(vocabulary), unk_token=unknown))
  tokenizer.normalizer = normalizers.BertNormalizer(**options)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES)
  tokenizer.add_special_tokens([text for text in SPECIALS.values() if text in vocabulary])
  return tokenizer


def set_template(tokenizer: Any, before: str | None, after: str | None) -> None:
  """Makes a `tokenizers.Tokenizer` put special entries before and after a text."""
  from tokenizers import processors

  special = [(text, tokenizer.token_to_id(text)) for text in (before, after) if text]
  single = [*([before] if before else []), '$A', *([after] if after else [])]
  tokenizer.post_processor = processors.TemplateProcessing(
    single=single, pair=[*single, '$B'], special_tokens=special
  )


def _template(stored: Mapping[str, Any]) -> Template:
  """The ids that the post-processor of a tokenizer.json puts before and after a text.

  Raises:
    UserError: it is of a kind that is not known.
  """
  kind = stored['type']
  if kind == 'Sequence':
    # Each puts its ids around those of the one before it.
    parts = [_template(part) for part in stored['processors']]
    before = (id for part in reversed(parts) for id in part[0])
    return tuple(before), tuple(id for part in parts for id in part[1])
  if kind in ('BertProcessing', 'RobertaProcessing'):
    return (stored['cls'][1],), (stored['sep'][1],)
  if kind == 'TemplateProcessing':
    sides: tuple[list[int], list[int]] = ([], [])
    is_after = False
    for part in stored['single']:
      is_after = is_after or 'Sequence' in part
      if 'SpecialToken' in part:
        sides[is_after].extend(stored['special_tokens'][part['SpecialToken']['id']]['ids'])
    return tuple(sides[0]), tuple(sides[1])
  if kind == 'ByteLevel':
    return (), ()
  raise errors.UserError(
    f'its post_processor is of the type {kind}, which is not known; take a tokenizer.json with '
    'TemplateProcessing'
  )


def _is_lossless(stored: Mapping[str, Any]) -> bool:
  """Returns whether a tokenizer.json is of byte-level BPE that decodes to the same bytes."""
  before = stored.get('pre_tokenizer') or {}
  parts = before.get('pretokenizers', [before])
  return (
    stored['model'].get('type') == 'BPE'
    and not stored.get('normalizer')
    and not stored['model'].get('continuing_subword_prefix')
    and not stored['model'].get('end_of_word_suffix')
    and not any(
      token['lstrip'] or token['rstrip'] for token in stored['added_tokens'] if not token['special']
    )
    and (stored.get('decoder') or {}).get('type') == 'ByteLevel'
    and all(
      (part.get('type') == 'Split' and part['behavior'] != 'Removed')
      or (part.get('type') == 'ByteLevel' and not part['add_prefix_space'])
      for part in parts
    )
  )
