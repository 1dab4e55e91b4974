"""A run's tokenizer as the files that transformers loads."""

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
  """{name: JSON} of `tokenizer.json` and `tokenizer_config.json`.

  Args:
    text: the JSON of `data.text.tokenization.from_json`.
    length: most tokens that the model sees.
  """
  known = tokenization.from_json(text)
  written = {name: tokenization.SPECIALS[role] for role in known.specials for name in _NAMES[role]}
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_max_length': length,
    'clean_up_tokenization_spaces': False,
    **written,
  }
  return {'tokenizer.json': _of_package(text), 'tokenizer_config.json': settings}


def ids(text: str) -> dict[str, int | None]:
  """What a model's `config.json` says of special entries; None for those there are none of."""
  specials = tokenization.from_json(text).specials
  end, pad = specials.get('end'), specials.get('pad')
  return {'bos_token_id': end, 'eos_token_id': end, 'pad_token_id': pad}


def _of_package(text: str) -> Mapping[str, Any]:
  """The tokenizer as one of the package `tokenizers`; those of subwords are that already.

  Bytes and characters become a BPE that merges nothing. What a vocabulary of characters lacks, that
  package drops in silence, where our own tokenizer complains.
  """
  stored = json.loads(text)
  if 'kind' not in stored:
    return stored
  from tokenizers import Tokenizer, decoders, models

  specials = [tokenization.SPECIALS[role] for role in tokenization.from_json(text).specials]
  entries = stored.get('characters', [f'<0x{byte:02X}>' for byte in range(256)])
  vocabulary = {entry: id for id, entry in enumerate([*entries, *specials])}
  unknown = tokenization.SPECIALS['unknown']
  known = {'unk_token': unknown} if unknown in specials else {}
  made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, **known))
  made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
  made.add_special_tokens(specials)
  return json.loads(made.to_str())
