"""Tokenizers of Hugging Face folders give the ids that transformers gives.

The literals were recorded with `AutoTokenizer` of transformers 5.24 on these very files, special
entries within texts being text (`split_special_tokens=True`).
"""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

import errors
from data.text import tokenization
from tests.tools.folders import write_files

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [('h', 'e'), ('l', 'l'), ('he', 'll'), ('Ġ', 'w'), ('o', 'r')]
ENTRIES = [*ALPHABET, *(a + b for a, b in MERGES), '</s>', '<s>']
GPT2 = {
  'config.json': {'model_type': 'gpt2', 'vocab_size': 300},
  'vocab.json': {entry: id for id, entry in enumerate(ENTRIES)},
  'merges.txt': '#version: 0.2\n' + '\n'.join(map(' '.join, MERGES)) + '\n',
}
NAMED = {'eos_token': '</s>', 'bos_token': '<s>', 'unk_token': '</s>'}
WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] a b c ##b ##c é e A 日 本 日本 . ! \''.split()  # fmt: skip
BERT = {'config.json': {'model_type': 'bert'}, 'vocab.txt': '\n'.join(WORDS) + '\n'}
HELLO = [258, 78, 259, 260, 75, 67]
ODD = (
  '',
  'Größe, naïve façade e\u0301',
  '👩\u200d🚀👨\u200d👩\u200d👧 🇩🇪',
  '日本語 と한국어',
  'a\x00b\x07\x7f\u200b\ufeffc',
  '   runs  of   spaces   ',
  'tab\ttab\r\nline\rline\n\n',
  "it's <x>inside<x>words<y> a<x> b",
  'a' * 10_000,
  'x [MASK] </s> <s> <|endoftext|>',
)


def read(tmp_path, *contents):
  for content in contents:
    write_files(tmp_path, content)
  return tokenization.read(str(tmp_path))


def added(content, **options):
  usual = dict(special=False, normalized=True, lstrip=False, rstrip=False, single_word=False)
  return {'content': content, **usual, **options}


# --- the ids of transformers ----------------------------------------------------------------------


@pytest.mark.parametrize(
  ('settings', 'ids', 'template'),
  [
    (None, [5, 8, 9, 5, 11], ((2,), (3,))),  # the class of the model makes its own normalizer
    ({'tokenizer_class': 'BertTokenizerFast'}, [5, 8, 9, 5, 11], ((2,), (3,))),
    ({'do_lower_case': False}, [5, 8, 9, 12, 10], ((2,), (3,))),
    ({'tokenizer_class': 'PreTrainedTokenizerFast'}, [5, 8, 9, 12, 10], None),
    # A general class takes the file as it is.
    ({'tokenizer_class': 'TokenizersBackend', 'do_lower_case': True}, [5, 8, 9, 12, 10], None),
  ],
)
def test_the_class_says_what_is_taken_of_a_berts_tokenizer_json(settings, ids, template, tmp_path):
  made = tokenizers.Tokenizer(
    models.WordPiece({word: id for id, word in enumerate(WORDS)}, unk_token='[UNK]')
  )
  made.normalizer = normalizers.BertNormalizer(lowercase=False)
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  files = {'config.json': BERT['config.json'], 'tokenizer.json': json.loads(made.to_str())}
  if settings is not None:
    files['tokenizer_config.json'] = settings
  tokenizer = read(tmp_path, files)
  assert tokenizer.encode('abc A é').tolist() == ids
  assert tokenizer.template == template


@pytest.mark.parametrize(
  ('settings', 'leads'),
  [
    ({}, False),
    ({'tokenizer_class': 'GPT2Tokenizer', 'add_prefix_space': True}, True),
    ({'tokenizer_class': 'PreTrainedTokenizerFast'}, True),
    ({'tokenizer_class': 'PreTrainedTokenizerFast', 'add_prefix_space': False}, True),
  ],
)
def test_the_class_says_what_is_taken_of_a_gpt2s_tokenizer_json(settings, leads, tmp_path):
  write_files(tmp_path, GPT2)
  model = models.BPE.from_file(str(tmp_path / 'vocab.json'), str(tmp_path / 'merges.txt'))
  made = tokenizers.Tokenizer(model)
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  files = {'tokenizer.json': json.loads(made.to_str()), 'tokenizer_config.json': settings}
  assert read(tmp_path, files).encode('hello world').tolist() == [220] * leads + HELLO


@pytest.mark.parametrize(
  ('contents', 'text', 'ids'),
  [
    ({}, 'hello world', HELLO),
    ({}, 'a<x>b <y>c', [64, 27, 87, 29, 65, 220, 27, 88, 29, 66]),
    ({'added_tokens.json': {'<y>': 264, '<x>': 263}}, 'a<x>b <y>c', [64, 263, 65, 220, 264, 66]),
    (
      {'tokenizer_config.json': {**NAMED, 'added_tokens_decoder': {
        '261': added('</s>', special=True, normalized=False), '263': added('<x>', lstrip=True)}}},
      'a <x>b <y>c </s>',
      [64, 263, 65, 220, 27, 88, 29, 66, 220, 27, 14, 82, 29],
    ),
    ({'tokenizer_config.json': {'add_prefix_space': True}}, 'hello world', [220, *HELLO]),
    ({'tokenizer_config.json': {'add_prefix_space': True}}, ' hello world', [220, *HELLO]),
    ({'tokenizer_config.json': {'add_prefix_space': True}}, '', []),
  ],
)  # fmt: skip
def test_a_gpt2_of_vocabulary_and_merges(contents, text, ids, tmp_path):
  tokenizer = read(tmp_path, GPT2, contents)
  assert tokenizer.encode(text).tolist() == ids
  again = tokenization.from_json(tokenizer.to_json())
  assert again.encode(text).tolist() == ids and again.to_json() == tokenizer.to_json()


@pytest.mark.parametrize(
  ('settings', 'text', 'ids'),
  [
    ({}, 'abc A é 日本 ', [5, 8, 9, 5, 11, 13, 14]),
    ({}, 'ab.c !', [5, 8, 16, 7, 17]),
    ({}, 'a [MASK] b', [5, 1, 1, 1, 6]),
    ({'do_lower_case': False}, 'abc A é 日本 ', [5, 8, 9, 12, 10, 13, 14]),
    ({'strip_accents': False}, 'abc A é 日本 ', [5, 8, 9, 5, 10, 13, 14]),
    ({'tokenize_chinese_chars': False}, 'abc A é 日本 ', [5, 8, 9, 5, 11, 15]),
  ],
)
@pytest.mark.parametrize('ends', ['\n', '\r\n'])
def test_a_bert_of_a_vocabulary(settings, text, ids, ends, tmp_path):
  vocabulary = {'vocab.txt': BERT['vocab.txt'].replace('\n', ends)}
  tokenizer = read(tmp_path, BERT, vocabulary, {'tokenizer_config.json': settings})
  assert tokenizer.encode(text).tolist() == ids
  assert tokenizer.template == ((2,), (3,))
  assert tokenization.from_json(tokenizer.to_json()).template == ((2,), (3,))
  roles = ('pad', 'unknown', 'class', 'separator', 'mask')
  assert dict(tokenizer.specials) == {role: id for id, role in enumerate(roles)}


def variants(folder):
  """Tokenizers of the package that differ in every option that changes ids."""
  write_files(folder, GPT2)
  files = str(folder / 'vocab.json'), str(folder / 'merges.txt')

  def gpt2(**options):
    made = tokenizers.Tokenizer(models.BPE.from_file(*files, **options))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(['</s>', '<s>'])
    made.add_tokens([tokenizers.AddedToken('<x>', lstrip=True), '<y>'])
    return made

  yield 'plain', gpt2()
  yield 'ignore_merges', gpt2(ignore_merges=True)
  made = gpt2()
  made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
  yield 'normalizer', made
  made = gpt2()
  made.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
  )
  yield 'pre_tokenizer', made
  made = gpt2()
  made.enable_truncation(3)
  made.enable_padding(length=20, pad_id=0)
  made.post_processor = processors.TemplateProcessing(
    single='<s> $A </s>', special_tokens=[('<s>', 262), ('</s>', 261)]
  )
  yield 'template', made
  entries = [f'<0x{byte:02X}>' for byte in range(256)] + ['a', 'in', 'i', 'n', '<unk>', 'a</w>']
  vocabulary = {entry: id for id, entry in enumerate(entries)}
  yield (
    'byte_fallback',
    tokenizers.Tokenizer(
      models.BPE(vocabulary, [('i', 'n')], byte_fallback=True, unk_token='<unk>')
    ),
  )
  yield (
    'end_of_word',
    tokenizers.Tokenizer(
      models.BPE(vocabulary, [], end_of_word_suffix='</w>', unk_token='<unk>', fuse_unk=True)
    ),
  )
  for options in (dict(lowercase=True), dict(lowercase=False, strip_accents=True)):
    made = tokenizers.Tokenizer(
      models.WordPiece(
        {word: id for id, word in enumerate(WORDS)}, unk_token='[UNK]', max_input_chars_per_word=50
      )
    )
    made.normalizer = normalizers.BertNormalizer(**options)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_tokens([tokenizers.AddedToken('<X>', single_word=True)])
    yield f'wordpiece {options}', made
  pieces = [('<unk>', 0.0), ('▁', -1.0), ('a', -2.0), ('b', -2.5), ('ab', -3.0)]
  made = tokenizers.Tokenizer(models.Unigram(pieces, 0, False))
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  yield 'unigram', made


def test_every_option_of_a_tokenizer_json_gives_the_packages_ids(tmp_path):
  for name, theirs in variants(tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    theirs.save(str(folder / 'tokenizer.json'))
    folder_of = {'config.json': {'eos_token_id': 1}, 'generation_config.json': {}}
    ours = read(folder, folder_of)
    theirs.no_truncation()
    theirs.no_padding()
    theirs.encode_special_tokens = True
    again = tokenization.from_json(ours.to_json())
    for text in ODD:
      ids = theirs.encode(text, add_special_tokens=False).ids
      assert ours.encode(text).tolist() == ids == again.encode(text).tolist(), (name, text[:40])
      found, starts = ours.offsets(text)
      assert found.tolist() == ids and len(starts) == len(ids), (name, text[:40])
    assert ours.template == (((262,), (261,)) if name == 'template' else None)


def test_bytes_are_counted_only_where_no_token_takes_more(tmp_path):
  tokenizer = read(tmp_path, GPT2, {'added_tokens.json': {'<x>': 263}})
  ids = tokenizer.encode('a <x> b')
  assert tokenizer.token_bytes()[ids].sum() == len('a <x> b')
  greedy = {'added_tokens_decoder': {'263': added('<x>', lstrip=True)}}
  assert read(tmp_path, {'tokenizer_config.json': greedy}).token_bytes() is None


@pytest.mark.parametrize(('key', 'text', 'change'), [
  ('do_lower_case', 'A b', False), ('strip_accents', 'é', False),
  ('tokenize_chinese_chars', '日本', False),
])  # fmt: skip
def test_settings_of_berts_normalizer_apply_to_a_tokenizer_json(key, text, change, tmp_path):
  plain = read(tmp_path, BERT)
  stored = json.loads(plain.to_json())
  (tmp_path / 'tokenizer.json').write_text(json.dumps(stored.get('tokenizer', stored)))
  (tmp_path / 'vocab.txt').unlink()
  assert read(tmp_path).encode(text).tolist() == plain.encode(text).tolist()
  changed = read(tmp_path, {'tokenizer_config.json': {key: change}})
  assert changed.encode(text).tolist() != plain.encode(text).tolist()


# --- special entries ------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('contents', 'ends', 'specials'),
  [
    ({}, (), {}),
    ({'tokenizer_config.json': NAMED}, (261,), {'end': 261, 'start': 262}),
    ({'tokenizer_config.json': {'eos_token': {'__type': 'AddedToken', **added('</s>')}}},
     (261,), {'end': 261}),
    ({'special_tokens_map.json': {'eos_token': '</s>', 'bos_token': added('<s>')}},
     (261,), {'end': 261, 'start': 262}),
    # The map is older than the decoder.
    ({'special_tokens_map.json': {'eos_token': '<s>'},
      'tokenizer_config.json': {'eos_token': '</s>', 'added_tokens_decoder': {}}},
     (261,), {'end': 261}),
    ({'config.json': {'eos_token_id': 261, 'bos_token_id': 262}},
     (261,), {'end': 261, 'start': 262}),
    ({'config.json': {'eos_token_id': [5, 261], 'pad_token_id': 7},
      'tokenizer_config.json': NAMED}, (5, 261), {'end': 261, 'start': 262, 'pad': 7}),
    ({'config.json': {'eos_token_id': 5}, 'generation_config.json': {'eos_token_id': [6, 7]}},
     (6, 7), {'end': 6}),
    # Ids that the tokenizer has not, as those of the class where nobody set them.
    ({'config.json': {'eos_token_id': 50256, 'bos_token_id': 50256},
      'tokenizer_config.json': NAMED}, (261,), {'end': 261, 'start': 262}),
    ({'generation_config.json': {'eos_token_id': None}, 'config.json': {'eos_token_id': 261}},
     (261,), {'end': 261}),
    ({'tokenizer_config.json': {'eos_token': '<end>'}}, (263,), {'end': 263}),
  ],
)  # fmt: skip
def test_the_end_is_where_transformers_finds_it(contents, ends, specials, tmp_path):
  tokenizer = read(tmp_path, GPT2, contents)
  assert tokenizer.ends == ends and dict(tokenizer.specials) == specials
  again = tokenization.from_json(tokenizer.to_json())
  assert again.ends == ends and again.specials == tokenizer.specials


@pytest.mark.parametrize(('settings', 'template'), [
  ({}, None),
  ({**NAMED, 'add_bos_token': True}, ((262,), ())),
  ({**NAMED, 'add_bos_token': True, 'add_eos_token': True}, ((262,), (261,))),
])  # fmt: skip
def test_the_entries_around_a_text(settings, template, tmp_path):
  tokenizer = read(tmp_path, GPT2, {'tokenizer_config.json': settings})
  assert tokenizer.template == template
  assert tokenizer.encode('hello world').tolist() == HELLO


@pytest.mark.parametrize(
  'processor',
  [
    lambda: processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2)),
    lambda: processors.RobertaProcessing(('[SEP]', 3), ('[CLS]', 2)),
    lambda: processors.Sequence(
      [
        processors.ByteLevel(),
        processors.TemplateProcessing(
          single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
        ),
      ]
    ),
  ],
)
def test_every_post_processor_is_understood(processor, tmp_path):
  stored = json.loads(read(tmp_path, BERT).to_json())
  theirs = tokenizers.Tokenizer.from_str(json.dumps(stored.get('tokenizer', stored)))
  theirs.post_processor = processor()
  folder = tmp_path / 'folder'
  folder.mkdir()
  theirs.save(str(folder / 'tokenizer.json'))
  assert theirs.encode('a').ids == [2, 5, 3]
  assert read(folder).template == ((2,), (3,))


def test_spaces_are_cleaned_up_as_the_folder_says(tmp_path):
  clean = {'tokenizer_config.json': {'clean_up_tokenization_spaces': True}}
  plain, cleaned = read(tmp_path, BERT), read(tmp_path, clean)
  ids = plain.encode("a ' b")
  assert plain.decode(ids) == "a ' b" and cleaned.decode(ids) == "a'b"
  assert cleaned.whole_only and not plain.whole_only
  again = tokenization.from_json(cleaned.to_json())
  assert again.decode(ids) == "a'b" and again.whole_only
  # transformers leaves those of BPE alone.
  other = tmp_path / 'gpt2'
  other.mkdir()
  bpe = read(other, GPT2, clean)
  assert bpe.decode(bpe.encode("it is . n't ok !")) == "it is . n't ok !" and not bpe.whole_only


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('base', 'contents', 'said'),
  [
    (GPT2, {'added_tokens.json': {'<x>': 270}}, r'added_tokens.json gives "<x>" the id 270.* 263'),
    (GPT2, {'added_tokens.json': {'<x>': 263, '<y>': 263}}, r'"<y>" the id 263.* 264'),
    (GPT2, {'tokenizer_config.json': {'added_tokens_decoder': {'9': added('<x>')}}},
     r'added_tokens_decoder of tokenizer_config.json gives "<x>" the id 9'),
    (GPT2, {'tokenizer_config.json': {'tokenizer_class': 'CLIPTokenizerFast'}}, 'CLIPTokenizer'),
    (GPT2, {'tokenizer_config.json': {'eos_token': 3}}, 'eos_token|token 3'),
    (GPT2, {'config.json': {'eos_token_id': '2'}}, 'config.json has eos_token_id="2"'),
    (GPT2, {'generation_config.json': {'eos_token_id': [1, None]}}, 'generation_config.json has'),
    (GPT2, {'generation_config.json': '[]'}, 'generation_config.json holds no JSON object'),
    (GPT2, {'tokenizer_config.json': '{'}, 'tokenizer_config.json is no JSON'),
    (BERT, {'tokenizer_config.json': {'do_basic_tokenize': False}}, 'do_basic_tokenize=False'),
    (BERT, {'tokenizer_config.json': {'never_split': ['a']}}, 'never_split'),
    (BERT, {'tokenizer_config.json': {'tokenizer_class': 'BertJapaneseTokenizer'}}, 'Japanese'),
    (BERT, {'tokenizer_config.json': {'auto_map': {'AutoTokenizer': ['a.B', None]}}}, 'runs code'),
    ({}, {'spiece.model': 'x'}, 'spiece.model is there and tokenizer.json is not'),
    (GPT2, {'vocab.json': {**GPT2['vocab.json'], 'z': 'x'}}, 'the token "z" the id "x", and each'),
    (GPT2, {'vocab.json': {**GPT2['vocab.json'], '</s>': 0}}, '"</s>" the id 0, which "!" has too'),
    (GPT2, {'vocab.json': {**GPT2['vocab.json'], '<s>': 1.5}}, '"<s>" the id 1.5, and each needs'),
  ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(base, contents, said, tmp_path):
  with pytest.raises(errors.UserError, match=said) as error:
    read(tmp_path, base, contents)
  assert str(tmp_path) in str(error.value) and '\n' not in str(error.value)


def test_random_ids_are_refused(tmp_path):
  stored = json.loads(tokenization.train('bpe', ['a b'], 256, ()).to_json())
  stored['model']['dropout'] = 0.1
  with pytest.raises(errors.UserError, match=r'model.dropout=0.1.*random'):
    read(tmp_path, {'tokenizer.json': stored})
  stored['model']['dropout'] = None
  assert read(tmp_path, {'tokenizer.json': stored}).encode('a b').dtype == np.int32
