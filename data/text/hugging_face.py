"""Reads the tokenizer of a Hugging Face folder: every file and key of it that changes ids.

Its settings are taken as transformers takes them (`AutoTokenizer.from_pretrained`, `generate`):

- `tokenizer.json` is the tokenizer, else `vocab.json` and `merges.txt` (GPT-2), else `vocab.txt`
  (BERT). Of the classes `GPT2Tokenizer` and `BertTokenizer`, which are the usual ones of these
  models, the normalizer and the pre-tokenizer follow from `tokenizer_config.json` alone.
- Tokens of `added_tokens_decoder`, or without it of `added_tokens.json`, and special tokens of
  `tokenizer_config.json` and `special_tokens_map.json` are added where they are not there yet.
- Texts end at the `eos_token_id` of `generation_config.json`, else of `config.json`, else at the
  tokenizer's `eos_token`; `bos_token_id` and `pad_token_id` likewise.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import errors
import files
from data.text import subword
from data.text.subword import NAMES, Settings, Subword
from data.text.symbols import SPECIALS

CONFIG, GENERATION = 'config.json', 'generation_config.json'
SETTINGS, SPECIAL_TOKENS = 'tokenizer_config.json', 'special_tokens_map.json'
ADDED_TOKENS = 'added_tokens.json'

# Lists of further special tokens, by the releases of transformers.
_EXTRA = ('additional_special_tokens', 'extra_special_tokens')
# Classes of transformers whose files are read without a tokenizer.json; each may end in Fast.
_GENERAL = ('', 'PreTrainedTokenizer', 'TokenizersBackend')
_GPT2 = ('GPT2Tokenizer', *_GENERAL)
_BERT_CLASSES = ('BertTokenizer', 'DistilBertTokenizer', 'ElectraTokenizer')
_BERT = (*_BERT_CLASSES, *_GENERAL)
# The class where no file names one, by the `model_type` of config.json.
_USUAL = {'gpt2': 'GPT2Tokenizer', 'bert': 'BertTokenizer'}
# Their values where they are not given.
_NORMALIZED = {'lowercase': True, 'strip_accents': None, 'handle_chinese_chars': True}
# Classes that split texts by programs outside the package `tokenizers`, whatever files there are.
_OUTSIDE = ('BertJapaneseTokenizer', 'BertweetTokenizer', 'PhobertTokenizer')
# Settings of BERT's normalizer, by their names in tokenizer_config.json.
_NORMALIZER = {
  'do_lower_case': 'lowercase',
  'strip_accents': 'strip_accents',
  'tokenize_chinese_chars': 'handle_chinese_chars',
}
_SAVE = 'have transformers write it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)'
# Files of tokenizers that are not read.
_OTHERS = ('spiece.model', 'tokenizer.model', 'sentencepiece.bpe.model', 'tekken.json')


def read_folder(folder: files.Path) -> Subword | None:
  """Reads the tokenizer of a folder; None if it has none of the files.

  Raises:
    UserError: a file or a key has a value that cannot be read, or one that cannot be applied.
  """
  settings = _settings(folder)
  names = {file.name for file in files.entries(folder)}
  if 'tokenizer.json' in names:
    tokenizer = _from_package(folder, settings)
  elif {'vocab.json', 'merges.txt'} <= names:
    tokenizer = _from_merges(folder, settings)
  elif 'vocab.txt' in names:
    tokenizer = _from_vocabulary(folder, settings)
  else:
    for name in _OTHERS:
      if name in names:
        raise errors.UserError(f'{name} is there and tokenizer.json is not; {_SAVE}')
    return None
  _add_tokens(tokenizer, folder, settings)
  tokens = {
    name: _content(value, name) for name, value in settings.items() if name in NAMES.values()
  }
  if 'tokenizer.json' not in names or settings['tokenizer_class'] in _BERT_CLASSES:
    _set_template(tokenizer, settings, tokens)
  clean_up = settings.get('clean_up_tokenization_spaces') is True
  # As transformers, which keeps the spaces of BPE, where they are part of the text.
  clean_up = clean_up and _kind(tokenizer) != 'BPE'
  extra = tuple(_content(token, 'extra_special_tokens') for token in _extra(settings))
  ids = _ids_of_model(folder, tokenizer)
  return Subword(tokenizer, Settings(tokens, extra, clean_up=clean_up, **ids))


def _settings(folder: files.Path) -> dict[str, Any]:
  """The entries of tokenizer_config.json, with those of special_tokens_map.json."""
  settings, named = _read(folder / SETTINGS), _read(folder / SPECIAL_TOKENS)
  # The map is of older releases, which write no decoder.
  both = {**named, **settings} if 'added_tokens_decoder' in settings else {**settings, **named}
  model = _read(folder / CONFIG)
  usual = _USUAL.get(str(model.get('model_type')), '')
  kind = both.get('tokenizer_class') or model.get('tokenizer_class') or usual
  kind, code = str(kind).removesuffix('Fast'), both.get('auto_map') or {}
  if kind in _OUTSIDE or isinstance(code, list) or 'AutoTokenizer' in code:
    raise errors.UserError(
      f'{SETTINGS} has the tokenizer "{kind}", which runs code that is not in its files; use a '
      'model whose tokenizer.json is the whole tokenizer'
    )
  return {**both, 'tokenizer_class': kind}


# --- the three forms of files ---------------------------------------------------------------------


def _from_package(folder: files.Path, settings: Mapping[str, Any]) -> Any:
  import tokenizers

  stored = _read(folder / 'tokenizer.json')
  dropout = (stored.get('model') or {}).get('dropout')
  if dropout:
    raise errors.UserError(
      f'tokenizer.json has model.dropout={dropout}, with which the ids of a text are random; set '
      'it to null'
    )
  kind, model = settings['tokenizer_class'], (stored.get('model') or {}).get('type')
  # These classes of transformers take the vocabulary, the merges and the added tokens of the file,
  # and make the rest themselves; the general ones take the file as it is, and no setting.
  if kind in _BERT_CLASSES and model == 'WordPiece':
    stored['normalizer'] = {
      'type': 'BertNormalizer',
      'clean_text': True,
      **{new: settings.get(old, _NORMALIZED[new]) for old, new in _NORMALIZER.items()},
    }
    stored['pre_tokenizer'] = {'type': 'BertPreTokenizer'}
  elif kind == 'GPT2Tokenizer' and model == 'BPE':
    stored['normalizer'] = None
    stored['pre_tokenizer'] = {
      'type': 'ByteLevel',
      'add_prefix_space': bool(settings.get('add_prefix_space', False)),
      'trim_offsets': True,
      'use_regex': True,
    }
  return tokenizers.Tokenizer.from_str(json.dumps(stored))


def _from_merges(folder: files.Path, settings: Mapping[str, Any]) -> Any:
  _check_class(settings, 'vocab.json and merges.txt', _GPT2)
  from tokenizers import models

  _check_ids(_read(folder / 'vocab.json'))
  model = models.BPE.from_file(str(folder / 'vocab.json'), str(folder / 'merges.txt'))
  tokenizer = subword.byte_level(model, bool(settings.get('add_prefix_space', False)))
  known = tokenizer.get_vocab()
  tokenizer.add_special_tokens([text for text in SPECIALS.values() if text in known])
  return tokenizer


def _from_vocabulary(folder: files.Path, settings: Mapping[str, Any]) -> Any:
  _check_class(settings, 'vocab.txt', _BERT)
  plain = {'do_basic_tokenize': (True,), 'never_split': (None, []), 'wordpieces_prefix': ('##',)}
  for name, allowed in plain.items():
    if settings.get(name, allowed[0]) not in allowed:
      raise errors.UserError(
        f'{SETTINGS} has {name}={settings[name]}, which only a tokenizer.json can express; {_SAVE}'
      )
  # Not splitlines: some entries of a multilingual vocabulary are line ends of their own.
  lines = (folder / 'vocab.txt').read_text().removesuffix('\n').split('\n')
  return subword.bert(
    {entry: id for id, entry in enumerate(lines)},
    unknown=_content(settings.get('unk_token', '[UNK]'), 'unk_token'),
    lowercase=settings.get('do_lower_case', True),
    strip_accents=settings.get('strip_accents'),
    handle_chinese_chars=settings.get('tokenize_chinese_chars', True),
  )


def _check_class(settings: Mapping[str, Any], names: str, allowed: Sequence[str]) -> None:
  if settings['tokenizer_class'] not in allowed:
    raise errors.UserError(
      f'{SETTINGS} has tokenizer_class={settings["tokenizer_class"]}, whose {names} are not read '
      f'without a tokenizer.json; {_SAVE}'
    )


# --- tokens beside the vocabulary -----------------------------------------------------------------


def _add_tokens(tokenizer: Any, folder: files.Path, settings: Mapping[str, Any]) -> None:
  """Adds the tokens that the other files name, in transformers' order.

  Raises:
    UserError: a token would get another id than its file says.
  """
  from tokenizers import AddedToken

  names = (*NAMES.values(), *(name for name in settings if _is_special_name(name)))
  special = [settings[name] for name in dict.fromkeys(names) if settings.get(name)]
  special = [_content(token, SETTINGS) for token in (*special, *_extra(settings))]
  source = f'added_tokens_decoder of {SETTINGS}'
  added = [(int(id), token) for id, token in settings.get('added_tokens_decoder', {}).items()]
  if 'added_tokens_decoder' not in settings and (folder / ADDED_TOKENS).is_file():
    source = ADDED_TOKENS
    added = [
      (id, dict(content=text, special=text in special, normalized=text not in special))
      for text, id in _read(folder / ADDED_TOKENS).items()
    ]
  for id, token in sorted(added, key=lambda pair: pair[0]):
    content = _content(token, source)
    options = {name: value for name, value in token.items() if name not in ('content', '__type')}
    options['special'] = token.get('special', False) or content in special
    tokenizer.add_tokens([AddedToken(content, **options)])
    if tokenizer.token_to_id(content) != id:
      raise errors.UserError(
        f'{source} gives "{content}" the id {id}, and the tokenizer of the other files gives it '
        f'{tokenizer.token_to_id(content)}; use the files of one model'
      )
  known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
  for content in special:
    if content not in known:
      tokenizer.add_tokens([AddedToken(content, special=True)])


def _is_special_name(name: str) -> bool:
  return name.endswith('_token') and not name.startswith('add_')


def _extra(settings: Mapping[str, Any]) -> list[Any]:
  """The special tokens without a role."""
  found = next((settings[name] for name in _EXTRA if settings.get(name)), [])
  return [*(found.values() if isinstance(found, Mapping) else found)]


def _set_template(tokenizer: Any, settings: Mapping[str, Any], tokens: Mapping[str, Any]) -> None:
  """Sets the special tokens around a text, which tokenizer.json would say."""
  if _kind(tokenizer) == 'WordPiece':
    names = {'class': True, 'separator': True}
  else:
    names = {
      'start': settings.get('add_bos_token', False), 'end': settings.get('add_eos_token', False)
    }  # fmt: skip
  around = []
  for role, is_wanted in names.items():
    # GPT-2 begins a text with what ends it.
    usual = SPECIALS['end' if role == 'start' else role]
    text = tokens.get(NAMES[role], usual)
    is_known = text is not None and tokenizer.token_to_id(text) is not None
    around.append(text if is_wanted and is_known else None)
  if any(around):
    subword.set_template(tokenizer, *around)


# --- the model's files ----------------------------------------------------------------------------


def _ids_of_model(folder: files.Path, tokenizer: Any) -> dict[str, Any]:
  """The ids of the model's files that the tokenizer has, as `Settings` names them."""
  size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
  found: dict[str, tuple[int, ...]] = {}
  for _, name, given in _given_ids(folder):
    ids = [id for id in given if 0 <= id < size]
    if ids:
      found.setdefault(name, tuple(ids))
  one = {name: ids[0] for name, ids in found.items()}
  return dict(
    ends=found.get('eos_token_id', ()),
    start=one.get('bos_token_id'),
    pad=one.get('pad_token_id'),
  )


def unknown_ids(folder: files.Path, size: int) -> list[str]:
  """The ids of the model's files that none of `size` tokens has, as 'eos_token_id=9 (FILE)'."""
  return [
    f'{name}={id} ({file})'
    for file, name, given in _given_ids(folder)
    for id in given
    if not 0 <= id < size
  ]


def _given_ids(folder: files.Path) -> Iterator[tuple[str, str, list[int]]]:
  """Yields (file, name, ids) of the model's files."""
  for file in (GENERATION, CONFIG):
    stored = _read(folder / file)
    for name in ('eos_token_id', 'bos_token_id', 'pad_token_id'):
      yield file, name, _ids(stored.get(name), name, file)


def _ids(value: Any, name: str, file: str) -> list[int]:
  several = value if isinstance(value, list) else [] if value is None else [value]
  for id in several:
    if not isinstance(id, int) or isinstance(id, bool):
      raise errors.UserError(
        f'{file} has {name}={json.dumps(value)}, which must be the number of a token, or a list of '
        'them; set it right'
      )
  return several


def _content(value: Any, where: str) -> Any:
  """The text of a token that is written as a text or as an AddedToken; None for none."""
  content = value.get('content') if isinstance(value, Mapping) else value
  if (content is not None and not isinstance(content, str)) or (content is None and value):
    raise errors.UserError(
      f'{where} has the token {json.dumps(value)}, which is neither a text nor an object with its '
      '"content"; set it right'
    )
  return content


def _kind(tokenizer: Any) -> str:
  return type(tokenizer.model).__name__


def _check_ids(vocabulary: Mapping[str, Any]) -> None:
  """Refuses a vocab.json whose tokens have no number of their own, which would drop some."""
  tokens: dict[int, str] = {}
  for token, id in vocabulary.items():
    if not isinstance(id, int) or isinstance(id, bool) or id < 0 or id in tokens:
      other = f', which "{tokens[id]}" has too' if id in tokens else ''
      raise errors.UserError(
        f'vocab.json gives the token {json.dumps(token)} the id {json.dumps(id)}{other}, and each '
        'needs a whole number of its own; download or save it again'
      )
    tokens[id] = token


def _read(path: files.Path) -> dict[str, Any]:
  """The object of a JSON file; empty where there is no such file."""
  if not path.is_file():
    return {}
  try:
    value = files.parse_json(path.read_text())
  except ValueError as error:
    raise errors.UserError(
      f'{path.name} is no JSON ({error}); download or save it again'
    ) from error
  if not isinstance(value, dict):
    raise errors.UserError(f'{path.name} holds no JSON object; download or save it again')
  return value
