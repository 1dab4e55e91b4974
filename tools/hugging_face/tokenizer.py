"""Converts a run's tokenizer to the files that transformers loads."""

import json
from collections.abc import Mapping
from typing import Any

from data.text import tokenization
from data.text.subword import NAMES, Settings, Subword


def files(text: str, length: int) -> dict[str, Any]:
  """Returns {name: JSON} of the files of a tokenizer.

  Args:
    text: the tokenizer as JSON that `data.text.tokenization.from_json` reads.
    length: largest number of tokens that the model can attend to.
  """
  known = tokenization.from_json(text)
  package = _as_hugging_face(text)
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_max_length': length,
    'clean_up_tokenization_spaces': False,
  }
  before = package.get('pre_tokenizer') or {}
  if before.get('type') == 'ByteLevel':
    # Some releases take it for False where it is not said.
    settings['add_prefix_space'] = before['add_prefix_space']
  specials = {
    NAMES[role]: text for role, text in tokenization.SPECIALS.items() if role in known.specials
  }
  if 'end' in known.specials:
    # A text of ours begins after the end of another.
    specials['bos_token'] = specials['eos_token']
  if isinstance(known, Subword) and known.settings != Settings():
    specials = {name: known.token(id) for name, id in known.named_ids().items()}
    settings['clean_up_tokenization_spaces'] = known.settings.clean_up
    settings['additional_special_tokens'] = list(known.settings.extra)
  return {
    'tokenizer.json': package,
    'tokenizer_config.json': {**settings, **specials},
    'special_tokens_map.json': specials,
  }


def ids(text: str) -> dict[str, Any]:
  """Returns the ids of special entries for `config.json` and `generation_config.json`.

  `eos_token_id` is a list if there are several, and an id that there is none of is None.
  """
  known = tokenization.from_json(text)
  end, pad = known.specials.get('end'), known.specials.get('pad')
  if pad is None and isinstance(known, Subword):
    pad = known.named_ids().get('pad_token', known.settings.pad)
  return {
    'bos_token_id': known.specials.get('start', end),
    'eos_token_id': list(known.ends) if len(known.ends) > 1 else end,
    'pad_token_id': pad,
  }


def _as_hugging_face(text: str) -> Mapping[str, Any]:
  """Returns the JSON of the package `tokenizers`, in which subword tokenizers are stored already.

  Tokenizers of bytes and characters become a BPE without merges. The package silently drops
  characters that are not in the vocabulary, where our own tokenizer raises.
  """
  stored = json.loads(text)
  if 'kind' not in stored:
    return stored
  if 'tokenizer' in stored:
    return stored['tokenizer']
  from tokenizers import Tokenizer, decoders, models

  specials = [tokenization.SPECIALS[role] for role in tokenization.from_json(text).specials]
  entries = stored.get('characters', [f'<0x{byte:02X}>' for byte in range(256)])
  vocabulary = {entry: id for id, entry in enumerate([*entries, *specials])}
  unknown = tokenization.SPECIALS['unknown']
  unk_token = {'unk_token': unknown} if unknown in specials else {}
  tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, **unk_token))
  tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
  tokenizer.add_special_tokens(specials)
  return json.loads(tokenizer.to_str())
