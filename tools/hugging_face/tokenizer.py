"""Converts a run's tokenizer to the files that transformers loads."""

import json
from collections.abc import Mapping
from typing import Any

from data.text import tokenization

# The names that transformers gives to the roles of special entries.
_NAMES = {
  'end': ('eos_token', 'bos_token'),
  'pad': ('pad_token',),
  'unknown': ('unk_token',),
  'mask': ('mask_token',),
  'class': ('cls_token',),
  'separator': ('sep_token',),
}


def files(text: str, length: int) -> dict[str, Any]:
  """Returns {name: JSON} of `tokenizer.json` and `tokenizer_config.json`.

  Args:
    text: the tokenizer as JSON that `data.text.tokenization.from_json` reads.
    length: largest number of tokens that the model can attend to.
  """
  roles = tokenization.from_json(text).specials
  specials = {name: tokenization.SPECIALS[role] for role in roles for name in _NAMES[role]}
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_max_length': length,
    'clean_up_tokenization_spaces': False,
    **specials,
  }
  return {'tokenizer.json': _as_hugging_face(text), 'tokenizer_config.json': settings}


def ids(text: str) -> dict[str, int | None]:
  """Returns the ids of special entries for a model's `config.json`; None for missing ones."""
  specials = tokenization.from_json(text).specials
  end, pad = specials.get('end'), specials.get('pad')
  return {'bos_token_id': end, 'eos_token_id': end, 'pad_token_id': pad}


def _as_hugging_face(text: str) -> Mapping[str, Any]:
  """Returns the JSON of the package `tokenizers`, in which subword tokenizers are stored already.

  Tokenizers of bytes and characters become a BPE without merges. The package silently drops
  characters that are not in the vocabulary, where our own tokenizer raises.
  """
  stored = json.loads(text)
  if 'kind' not in stored:
    return stored
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
