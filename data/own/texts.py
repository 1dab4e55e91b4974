"""Texts in .txt and .jsonl files: text:PATH."""

import collections
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from data.own import listing
from data.own.contents import TEST, TRAIN, VALIDATION, Contents, Entry, deal
from data.own.listing import SPLITS, File, Listing, Placed
from data.own.options import DEFAULTS, Own
from data.own.progress import Progress, some
from data.text_files import decode
from errors import UserError

_SUFFIXES = ('.txt', '.jsonl')
# Fewer documents are cut into splits: a hash would deal them too unevenly.
_FEW = 10
# The shares of a document that is cut, in the order of the text.
_SHARES = ((TRAIN, 0.0, 0.8), (VALIDATION, 0.8, 0.9), (TEST, 0.9, 1.0))


class _Place(NamedTuple):
  """Where a document is: `length` bytes from `start` of a file, and of its text a share."""

  file: File
  start: int
  length: int
  share: tuple[float, float] = (0.0, 1.0)


def read(found: Listing, title: str, own: Own) -> Contents:
  """Reads all documents: every .txt file is one, and every line of a .jsonl file.

  Args:
    found: the file or the files below the folder.
    title: the data set's name.
    own: with the keys of .jsonl.

  Raises:
    UserError: there is no text, a line of .jsonl has no such key or is no JSON, or a class is no
      text or number; see also `listing.place`.
  """
  files = [file for file in found.files if file.name.lower().endswith(_SUFFIXES)]
  others = [file.name for file in found.files if file not in {*files}]
  if not files:
    raise UserError(
      f'config.data.name={title} has no .txt or .jsonl file'
      f'{f", only {some(others)}" if others else ""}; name such a file, or a folder of them'
    )
  if own.jsonl != DEFAULTS.jsonl and not any(_is_jsonl(file) for file in files):
    raise UserError(
      f'config.data.jsonl has no effect on {title}, which has no .jsonl files; leave it out'
    )
  left_out: dict[str, str] = {}
  entries: dict[str | None, list[Entry]] = collections.defaultdict(list)
  progress = Progress(f'reading {title}', 0, 'documents')
  for each in _placed(files, found, title, own):
    try:
      for entry in _documents(each, title, own):
        if not entry.digest:
          left_out[entry.title] = 'is empty'
        else:
          entries[each.split].append(entry)
        progress.add()
    except _Unreadable as error:
      left_out[each.file.name] = str(error)
  if not entries:
    name, reason = next(iter(left_out.items()), (files[0].name, 'is empty'))
    raise UserError(f'{title} has no text that can be read: {name} {reason}')
  splits = {split: each for split, each in entries.items() if split}
  whole = entries[None] if None in entries else splits[TRAIN] if {*splits} == {TRAIN} else None
  if whole is not None:
    # The last digit of the hash says the split.
    splits = deal(whole, (TEST, VALIDATION)) if len(whole) >= _FEW else _cut(whole)
  labels = {entry.label for each in splits.values() for entry in each if entry.label is not None}
  pairs = {(split, entry.label) for split, each in splits.items() for entry in each}
  if labels and None in {label for _, label in pairs}:
    raise UserError(
      f'{title} has documents with a class and others without one; give all of them one'
    )
  if labels and whole is None:
    listing.check_classes(pairs, title, 'documents')
  notes = (f'files of {title} that are no .txt or .jsonl: {some(others)}',) if others else ()
  return Contents(
    splits,
    listing.sorted_classes(labels),
    _features,
    lambda entry: {'text': _text_of(entry, title, own)},
    'documents',
    notes,
    left_out,
  )


class _Unreadable(ValueError):
  """A file that is left out."""


def _is_jsonl(file: File) -> bool:
  return file.name.lower().endswith('.jsonl')


def _placed(files: Sequence[File], found: Listing, title: str, own: Own) -> list[Placed]:
  """Gives each file its split and class; at the top, train.txt and test.txt are splits too."""
  stems = {os.path.splitext(file.name)[0].lower() for file in files}
  if not found.is_file and TRAIN in stems and stems <= {*SPLITS}:
    return [Placed(f, SPLITS[os.path.splitext(f.name)[0].lower()], None) for f in files]
  if own.jsonl.label:
    plain = [file.name for file in files if not _is_jsonl(file)]
    if plain:
      raise UserError(
        f'config.data.jsonl.label={own.jsonl.label}: {title} has .txt files too, which have no '
        f'keys ({some(plain)}); leave the option out, or move them'
      )
  placed = listing.place(files, title, 'files')
  return [each._replace(label=None) for each in placed] if own.jsonl.label else placed


def _documents(placed: Placed, title: str, own: Own) -> Iterator[Entry]:
  """Yields the documents of a file; an empty one without a digest."""
  file = placed.file
  try:
    if not _is_jsonl(file):
      text = decode(listing.read(file))
      yield _entry(text, placed.label, _Place(file, 0, file.size), file.name)
      return
    lines = open(file.path, 'rb')
  except ValueError as error:
    raise _Unreadable(str(error)) from error
  except OSError as error:
    raise _Unreadable(f'cannot be opened ({error.strerror})') from error
  start = 0
  with lines:
    for number, line in enumerate(lines, 1):
      if line.strip():
        where = f'{title}: line {number} of {file.name}'
        text, label = _values(line, where, own, title)
        label = placed.label if label is None else label
        yield _entry(text, label, _Place(file, start, len(line)), f'{file.name}:{number}')
      start += len(line)


def _entry(text: str, label: str | None, place: _Place, title: str) -> Entry:
  digest = hashlib.sha256(text.encode()).digest() if text.strip() else b''
  return Entry(digest, label, place, title)


def _values(line: bytes, where: str, own: Own, title: str) -> tuple[str, str | None]:
  """Returns the text and the class, if there is one, on a line of .jsonl."""
  try:
    found = json.loads(decode(line))
  except (ValueError, RecursionError) as error:
    raise UserError(f'{where} is no JSON ({error}); mend or remove it') from error
  if not isinstance(found, dict):
    raise UserError(f'{where} is no JSON object, such as {{"text": "…"}}; mend or remove it')
  for option, key in (('text', own.jsonl.text), ('label', own.jsonl.label)):
    if key and key not in found:
      raise UserError(
        f'{where} has no key "{key}", only {some([*found]) or "none"}; mend the line, or name '
        f'another key with --config.data.jsonl.{option}'
      )
  text = found[own.jsonl.text]
  if not isinstance(text, str):
    raise UserError(f'{where}: "{own.jsonl.text}" is {text!r:.40}, no text; mend the line')
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise UserError(f'{where} holds half of a surrogate pair; mend the line') from error
  if not own.jsonl.label:
    return text, None
  label = found[own.jsonl.label]
  if not isinstance(label, (str, int)) or label == '':
    raise UserError(
      f'{where}: "{own.jsonl.label}" is {label!r:.40}, and a class is a word or a whole number; '
      'mend the line'
    )
  return text, listing.class_name(str(label), title)


def _cut(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
  """Cuts each of a few documents into the splits."""
  return {
    split: [e._replace(source=e.source._replace(share=(start, stop))) for e in entries]
    for split, start, stop in _SHARES
  }


def _text_of(entry: Entry, title: str, own: Own) -> str:
  """Reads a document again: `read` keeps none in memory."""
  place = entry.source
  try:
    with open(place.file.path, 'rb') as file:
      file.seek(place.start)
      content = file.read(place.length)
  except OSError as error:
    raise UserError(f'{place.file.path} was removed while it was read; start again') from error
  if _is_jsonl(place.file):
    text, _ = _values(content, f'{title}: {entry.title}', own, title)
  else:
    text = decode(content)
  if hashlib.sha256(text.encode()).digest() != entry.digest:
    raise UserError(f'{place.file.path} was changed while it was read; start again')
  start, stop = (_line_start(text, share) for share in place.share)
  return text[start:stop]


def _line_start(text: str, share: float) -> int:
  """The place of the first line that begins after a share of the text."""
  if share in (0.0, 1.0):
    return int(share * len(text))
  at = int(share * len(text))
  line_end = text.find('\n', at)
  # Text of one long line is cut in the midst of it.
  near = at <= line_end < at + max(1, len(text) // 20)
  return line_end + 1 if near else at


def _features() -> dict[str, Any]:
  import tensorflow_datasets as tfds

  return {'text': tfds.features.Text()}
