"""Texts in words, files and pipes, as the rows of tokens that the run reads."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import files
from data.examples import Examples, Indices
from data.spec import Spec
from data.text import tokenization
from data.text.documents import Documents
from data.text.encoded import EncodedText
from data.text.options import DOCUMENTS, WINDOWS
from data.text.tokenization import Tokenizer
from data.unlabelled.base import (
  PIPE,
  InputRequest,
  Inputs,
  Preparation,
  Words,
  decoded,
  files_in,
  read_file,
  refuse_others,
  some,
)
from errors import UserError, nearest

# What a folder of texts is searched for.
_IN_FOLDERS = ('.txt', '.jsonl')
_SURROGATE = re.compile('[\ud800-\udfff]')
# Characters of a text that stand for it in messages.
_SHOWN = 40


class _Text(NamedTuple):
  """A text and what it is called."""

  name: str
  text: str


class _Encoded(NamedTuple):
  """A text as tokens.

  Attributes:
    ids: int32 [L], with the entries before it and the end of its document after it.
    bounds: int64 [L + 1], the bytes of the text at which each token starts and ends; −1 at the
      start of an entry that is none of its characters.
    raw: the text in UTF-8.
    is_mark: bool [L], which tokens are marks.
  """

  ids: np.ndarray
  bounds: np.ndarray
  raw: bytes
  is_mark: np.ndarray


def open_texts(asked: InputRequest, reading: Preparation) -> Inputs:
  """Encodes all texts with the run's tokenizer.

  In a run of windows each text begins a window of its own, and a longer one is read in several, as
  in evaluation; in a run of documents a text is a row, cut off where it is too long.

  Raises:
    UserError: a file cannot be read, a text is empty, has a character that the tokenizer lacks or
      none of the marks; there is none; or another flag has no effect.
  """
  refuse_others(asked, reading, 'text', ('--text', '--lines', '--column'))
  texts, others = _find(asked, asked.column or reading.text_key)
  if not texts:
    raise UserError(f'--input={",".join(asked.places)} has no text; name a file that has some')
  tokenizer = tokenization.from_json(reading.spec.tokenizer)
  encoder = _Encoder(tokenizer, reading.starts, reading.marks)
  with asked.counting('encode', len(texts)) as progress:
    encoded = []
    for text in texts:
      encoded.append(encoder.encode(text))
      progress(len(encoded))
  _check_marks(texts, encoded, encoder.marks)
  remarks = [f'left out of the folders: files that are no .txt or .jsonl ({others:,})']
  open_rows = {WINDOWS: _windows, DOCUMENTS: _documents}[reading.data.text.rows]
  given = open_rows(texts, encoded, tokenizer, reading)
  return given._replace(remarks=(*given.remarks, *(remarks if others else ())))


class _Encoder:
  """Encodes texts that may hold special entries, each in its place.

  Args:
    tokenizer: of the run.
    starts: ids before every text; those that the tokenizer puts before a text come first.
    marks: roles of the entries that are recognised in a text.
  """

  def __init__(self, tokenizer: Tokenizer, starts: Sequence[int], marks: Sequence[str]):
    self._tokenizer = tokenizer
    before = tokenizer.template[0] if starts and tokenizer.template else ()
    self._before = tuple(before or starts)
    self._after = [tokenizer.specials[role] for role in ('end',) if role in tokenizer.specials]
    ids = [tokenizer.specials[role] for role in marks]
    self.marks = {tokenizer.decode([id]): id for id in ids}

  def encode(self, text: _Text) -> _Encoded:
    """See `_Encoded`.

    Raises:
      UserError: the vocabulary lacks a character of the text.
    """
    parts: list[tuple[np.ndarray, np.ndarray, bool]] = [_special(self._before)]
    size = 0
    try:
      for piece, mark in _cut(text.text, self.marks):
        if mark is None:
          ids, starts = self._tokenizer.offsets(piece)
        else:
          ids, starts = np.array([mark], np.int32), np.zeros(1, np.int64)
        parts.append((ids, starts + size, mark is not None))
        size += len(piece.encode())
    except UserError as error:
      raise UserError(f'{_short(text.name)}: {error}') from error
    parts.append(_special(self._after))
    return _Encoded(
      np.concatenate([ids for ids, _, _ in parts]),
      np.concatenate([*(starts for _, starts, _ in parts), [size]]),
      text.text.encode(),
      np.concatenate([np.full(len(ids), is_mark) for ids, _, is_mark in parts]),
    )


def _special(ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray, bool]:
  return np.array(ids, np.int32), np.full(len(ids), -1, np.int64), False


def _cut(text: str, marks: Mapping[str, int]) -> Iterator[tuple[str, int | None]]:
  """Yields the stretches of a text between marks, and the marks with their ids."""
  place = 0
  while place < len(text):
    found = [(text.find(mark, place), mark) for mark in marks]
    at, mark = min(((at, mark) for at, mark in found if at >= 0), default=(len(text), ''))
    if at > place:
      yield text[place:at], None
    if mark:
      yield mark, marks[mark]
    place = at + len(mark)


def _check_marks(
  texts: Sequence[_Text], encoded: Sequence[_Encoded], marks: Mapping[str, int]
) -> None:
  without = [_short(text.name) for text, each in zip(texts, encoded) if not each.is_mark.any()]
  if marks and without:
    raise UserError(
      f'{len(without):,} of {len(texts):,} texts have no {" or ".join(marks)}: {some(without)}; '
      f'write {" or ".join(marks)} in place of what is to be predicted'
    )


# --- rows


class SeparateWindows(Examples):
  """Windows of texts that each begin a window, with the features `tokens` and `length`.

  Args:
    ids: the tokens of each text.
    spec: of the data that the run was trained on, whose length of a row they have.
    stride: tokens between the starts of windows.
    next_token: whether the last token of a row is a target only, so that a window of one has none.
    pad: the id after the end of a text.

  Attributes:
    text_of: int64 [N], the text of each window.
    starts: int64 [N], the first token of each window in its text.
  """

  def __init__(
    self, ids: Sequence[np.ndarray], spec: Spec, stride: int, next_token: bool, pad: int
  ):
    self._tokens = np.concatenate(ids)
    lengths = np.array([len(each) for each in ids], np.int64)
    self._first = np.cumsum(lengths) - lengths
    self._lengths, self._pad = lengths, pad
    counts = np.maximum(-(-(lengths - next_token) // stride), 0)
    self.text_of = np.repeat(np.arange(len(ids)), counts)
    within = np.arange(len(self.text_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    self.starts = within * stride
    (self.row,), _ = spec.features['tokens']
    self.stamp = ''
    features = {'tokens': ((self.row,), 'int32'), 'length': ((), 'int32')}
    self.spec = spec._replace(name='texts', split='', n=len(self.text_of), features=features)

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    index = np.asarray(indices, np.int64)
    column = self.starts[index][:, None] + np.arange(self.row)
    inside = column < self._lengths[self.text_of[index]][:, None]
    at = np.where(inside, self._first[self.text_of[index]][:, None] + column, 0)
    tokens = np.where(inside, self._tokens[at], self._pad).astype(np.int32)
    return {'tokens': tokens, 'length': inside.sum(axis=1, dtype=np.int32)}


def _windows(
  texts: Sequence[_Text], encoded: Sequence[_Encoded], tokenizer: Tokenizer, reading: Preparation
) -> Inputs:
  options = reading.data.text
  windows = SeparateWindows(
    [each.ids for each in encoded],
    reading.spec,
    options.length,
    options.next_token,
    tokenizer.specials.get('pad', 0),
  )
  counts = np.bincount(windows.text_of, minlength=len(texts))
  if not counts.all():
    bare = [_short(text.name) for text, count in zip(texts, counts) if not count]
    raise UserError(
      f'{some(bare)}: a text of one token has none that is predicted from another; give a longer '
      'one'
    )

  def words(number: int) -> Words:
    text, first = encoded[windows.text_of[number]], int(windows.starts[number])
    return _words(text, range(first, min(first + windows.row, len(text.ids))), tokenizer, first)

  return Inputs(
    windows,
    [text.name for text in texts],
    lambda number: int(windows.text_of[number]),
    words,
    lambda id: tokenizer.decode([id]),
  )


def _documents(
  texts: Sequence[_Text], encoded: Sequence[_Encoded], tokenizer: Tokenizer, reading: Preparation
) -> Inputs:
  (row,), _ = reading.spec.features['tokens']
  held = {
    'tokens': np.concatenate([each.ids for each in encoded]),
    'ends': np.cumsum([len(each.ids) for each in encoded], dtype=np.int64),
  }
  examples = Documents(
    EncodedText(None, held),
    reading.spec._replace(name='texts', split='', n=len(texts)),
    row=row,
    specials=tokenizer.specials,
    stamp='',
    template=tokenizer.template,
  )
  before, room = examples.before, examples.room
  end = int('end' in tokenizer.specials)
  kept = [min(len(each.ids) - end, room) for each in encoded]
  cut = [
    _short(text.name) for text, each, k in zip(texts, encoded, kept) if len(each.ids) - end > k
  ]
  lost = [
    _short(text.name) for text, each, k in zip(texts, encoded, kept) if each.is_mark[k:].any()
  ]
  if lost:
    raise UserError(
      f'{some(lost)}: what is to be predicted lies behind the {room} tokens that the run reads; '
      'shorten the text before it'
    )

  def words(number: int) -> Words:
    inside = _words(encoded[number], range(kept[number]), tokenizer, 0)
    outside = [''] * len(before)
    return Words([*outside, *inside.tokens], [*(False for _ in outside), *inside.ordinary])

  remark = (
    f'{len(cut):,} of {len(texts):,} texts are longer than the {room} tokens that the run reads, '
    f'and were cut off as in evaluation: {some(cut)}'
  )
  return Inputs(
    examples,
    [text.name for text in texts],
    lambda number: number,
    words,
    lambda id: tokenizer.decode([id]),
    (remark,) if cut else (),
  )


def _words(text: _Encoded, places: range, tokenizer: Tokenizer, first: int) -> Words:
  """The words of the tokens at `places` of a text; `first` is the first of its row."""
  # Tokens of a tokenizer that does not keep all bytes end where the next one starts.
  is_lossless = tokenizer.token_bytes() is not None
  tokens, ordinary = [], []
  for place in places:
    start, stop = int(text.bounds[place]), int(text.bounds[place + 1])
    if start < 0:
      tokens.append(tokenizer.decode([text.ids[place]]))
    else:
      piece = text.raw[start : stop if stop >= 0 else None].decode(errors='backslashreplace')
      tokens.append(piece if is_lossless else piece.strip() or piece)
    ordinary.append(start >= 0 and not text.is_mark[place])
  return Words(tokens, ordinary, int(text.is_mark[:first].sum()))


# --- where texts come from


def _find(asked: InputRequest, key: str) -> tuple[list[_Text], int]:
  """All texts, and how many files in folders were left out; `key` names those in columns."""
  texts = [_Text(text, text) for text in asked.texts]
  places, others = [], 0
  for place in asked.places:
    if place != PIPE and files.path(place).is_dir():
      inside = [*files_in(files.path(place))]
      found = [str(path) for path in inside if path.suffix in _IN_FOLDERS]
      places += found
      others += len(inside) - len(found)
    else:
      places.append(place)
  kinds = {place: files.path(place).suffix if place != PIPE else '' for place in places}
  has_columns, is_plain = (
    [place for place, kind in kinds.items() if (kind in _COLUMNED) == columned]
    for columned in (True, False)
  )
  if asked.column and not has_columns:
    raise UserError(
      f'--column={asked.column} has no effect: no input is a .csv or a .jsonl; leave it out'
    )
  if asked.lines is not None and not is_plain:
    raise UserError('--lines has no effect: no input is a file of plain text; leave it out')
  for place in places:
    content = decoded(asked.stdin() if place == PIPE else read_file(place), place)
    texts += _COLUMNED.get(kinds[place], _plain)(content, place, asked, key)
  empty = [_short(text.name) or '--text=' for text in texts if not text.text.strip()]
  if empty:
    raise UserError(f'{some(empty)}: there is no text; leave it out')
  halves = [_short(text.name) for text in texts if _SURROGATE.search(text.text)]
  if halves:
    shown = some(halves).encode(errors='backslashreplace').decode()
    raise UserError(f'{shown}: holds half of a surrogate pair, which is no character; mend it')
  return texts, others


def _plain(content: str, place: str, asked: InputRequest, key: str) -> list[_Text]:
  """The texts of a file without columns: each line that is not blank, or all of it."""
  del key
  by_line = place == PIPE if asked.lines is None else asked.lines
  if by_line:
    return [_Text(line, line) for line in content.splitlines() if line.strip()]
  return [_Text(place, content)] if content.strip() else []


def _json_lines(content: str, place: str, asked: InputRequest, key: str) -> list[_Text]:
  del asked
  found = []
  for number, line in enumerate(content.split('\n'), 1):  # texts may hold other line ends
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except ValueError as error:
      raise UserError(f'--input={place}: line {number} is no JSON ({error})') from error
    keys = [*record] if isinstance(record, dict) else []
    found.append(_text_of(record, keys, key, f'{place}:{number}'))
  return found


def _csv(content: str, place: str, asked: InputRequest, key: str) -> list[_Text]:
  del asked
  found = []
  reader = csv.DictReader(io.StringIO(content, newline=''))
  try:
    for record in reader:
      keys = [*(reader.fieldnames or ())]
      found.append(_text_of(record, keys, key, f'{place}:{reader.line_num}'))
  except csv.Error as error:
    raise UserError(f'--input={place} is no CSV (line {reader.line_num}: {error})') from error
  return found


def _text_of(record: Any, keys: Sequence[str], key: str, name: str) -> _Text:
  if key not in keys or not isinstance(record[key], str):
    raise UserError(
      f'--input={name} has no text "{key}"{nearest(key, keys)}; choose one of its columns with '
      f'--column: {some(keys) or "there is none"}'
    )
  return _Text(record[key] or name, record[key])


_COLUMNED = {'.jsonl': _json_lines, '.csv': _csv}


def _short(name: str) -> str:
  """A text's name in one short line, for messages."""
  line = ' '.join(name.split())
  return line if len(line) <= _SHOWN else f'{line[: _SHOWN - 1]}…'
