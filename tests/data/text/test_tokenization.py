"""Tokenizers: nothing is lost, every token knows its bytes, and what is stored is what was made."""

import difflib
import hashlib
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

import errors
from data.text import tokenization

# Real text of this machine, and characters of one to four bytes.
TEXT = inspect.getsource(json) + inspect.getsource(difflib)
MIXED = 'naïve 日本\t€ 😀\n\n  x = "[MASK]" <|endoftext|>'
BERT = ('pad', 'unknown', 'class', 'separator', 'mask')
MADE = {
  'byte': (0, ('end', 'pad')),
  'character': (0, ('end', 'unknown')),
  'bpe': (400, ('end', 'pad')),
  'wordpiece': (400, BERT),
}


@pytest.fixture(scope='module')
def made():
  return {kind: tokenization.train(kind, [TEXT], *options) for kind, options in MADE.items()}


@pytest.mark.parametrize('kind', MADE)
def test_specials_follow_the_ordinary_entries_in_the_order_asked_for(made, kind):
  roles = MADE[kind][1]
  size = made[kind].size
  assert [made[kind].specials[role] for role in roles] == [*range(size - len(roles), size)]
  ordinary = {'byte': 256, 'character': len(set(TEXT)), 'bpe': 400, 'wordpiece': 400}[kind]
  assert size == ordinary + len(roles)


@pytest.mark.parametrize('kind', MADE)
def test_text_that_looks_like_a_special_is_text(made, kind):
  ids = made[kind].encode('a [MASK] [PAD] <|endoftext|> b')
  assert ids.dtype == np.int32
  assert not set(ids.tolist()) & set(made[kind].specials.values())


@pytest.mark.parametrize('kind', MADE)
def test_offsets_are_the_bytes_at_which_tokens_start(made, kind):
  ids, starts = made[kind].offsets(MIXED)
  np.testing.assert_array_equal(ids, made[kind].encode(MIXED))
  assert starts[0] == 0 and len(starts) == len(ids)
  raw = MIXED.encode()
  pieces = [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)])]
  if kind == 'wordpiece':  # what it does not see, spaces, is behind the tokens
    assert b''.join(pieces) == raw
    beyond = [piece.decode() for piece in pieces if not piece.isascii()]
    assert [piece.strip() for piece in beyond[1:]] == ['日', '本', '€', '😀']
    return
  sizes = made[kind].token_bytes()
  if sizes is not None:
    assert [len(piece) for piece in pieces] == sizes[ids].tolist()
    assert b''.join(made[kind].decode([id]).encode() for id in ids[:2]) == b''.join(pieces[:2])
  else:
    assert [piece.decode() for piece in pieces] == list(MIXED)


@pytest.mark.parametrize('kind', ['byte', 'bpe'])
def test_bytes_survive(made, kind):
  for text in (TEXT, MIXED, '', ' leading', '\r\n'):
    ids = made[kind].encode(text)
    assert made[kind].decode(ids) == text
    assert made[kind].token_bytes()[ids].sum() == len(text.encode())


def test_characters_survive(made):
  exact = tokenization.train('character', [TEXT, MIXED], 0, ())
  assert exact.decode(exact.encode(MIXED)) == MIXED
  assert exact.token_bytes()[exact.encode(MIXED)].sum() == len(MIXED.encode())
  # In the order of their numbers, as nanoGPT has them.
  assert exact.decode(range(exact.size)) == ''.join(sorted(set(TEXT + MIXED)))


@pytest.mark.parametrize('kind', MADE)
def test_specials_stand_for_no_bytes_and_are_shown_but_for_pad(made, kind):
  tokenizer = made[kind]
  sizes = tokenizer.token_bytes()
  assert (sizes is None) == (kind in ('character', 'wordpiece'))
  if sizes is not None:
    assert sizes.shape == (tokenizer.size,) and sizes.dtype == np.int32
    assert not sizes[list(tokenizer.specials.values())].any() and sizes[:256].all()
  for role, id in tokenizer.specials.items():
    shown = '' if role == 'pad' else tokenization.SPECIALS[role]
    assert tokenizer.decode([id]) == shown
    around = tokenizer.decode([*tokenizer.encode('x'), id, *tokenizer.encode('x')])
    assert around.replace(' ', '') == f'x{shown}x'


@pytest.mark.parametrize('kind', MADE)
def test_what_is_stored_is_the_same_tokenizer(made, kind):
  stored = made[kind].to_json()
  again = tokenization.from_json(stored)
  assert again.to_json() == stored
  assert (again.size, dict(again.specials)) == (made[kind].size, dict(made[kind].specials))
  np.testing.assert_array_equal(again.encode(MIXED), made[kind].encode(MIXED))
  assert again.decode(again.encode(TEXT)) == made[kind].decode(made[kind].encode(TEXT))


@pytest.mark.parametrize('kind', MADE)
def test_many_texts_are_encoded_as_one_by_one(made, kind):
  texts = [TEXT[:300], '', MIXED]
  found = made[kind].encode_all(texts)
  assert len(found) == 3
  for ids, text in zip(found, texts):
    np.testing.assert_array_equal(ids, made[kind].encode(text))
    assert ids.dtype == np.int32


TRAIN = """
import difflib, inspect, json, sys
from data.text import tokenization
text = inspect.getsource(json) + inspect.getsource(difflib)
for kind, roles in (('bpe', ('end', 'pad')), ('wordpiece', sys.argv[1:])):
  print(tokenization.train(kind, [text], 400, roles).to_json())
"""


def test_training_gives_the_same_in_every_process(made):
  command = [sys.executable, '-c', TRAIN, *BERT]
  found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
  digest = [hashlib.sha256(line.encode()).hexdigest() for line in found]
  wanted = [made[kind].to_json().encode() for kind in ('bpe', 'wordpiece')]
  assert digest == [hashlib.sha256(line).hexdigest() for line in wanted]


def test_wordpiece_is_berts(made):
  from tokenizers.implementations import BertWordPieceTokenizer

  tokenizer = made['wordpiece']
  stored = json.loads(tokenizer.to_json())['model']['vocab']
  text = 'Déjà vu: the HTTPServer can’t parse_json(日本) — "quoted"'
  theirs = BertWordPieceTokenizer(stored, lowercase=True).encode(text, add_special_tokens=False)
  assert tokenizer.encode(text).tolist() == theirs.ids
  assert tokenizer.specials['unknown'] in theirs.ids  # 日 is not in the text it learnt from
  assert tokenizer.decode(tokenizer.encode('Deja vu, the')) == 'deja vu, the'


def test_bpe_is_that_of_gpt2(made):
  from tokenizers.implementations import ByteLevelBPETokenizer

  model = json.loads(made['bpe'].to_json())['model']
  merges = [tuple(pair) for pair in model['merges']]
  theirs = ByteLevelBPETokenizer(model['vocab'], merges)
  assert made['bpe'].encode(MIXED[:-13]).tolist() == theirs.encode(MIXED[:-13]).ids


@pytest.mark.parametrize('layout', ['tokenizer.json', 'vocab.json', 'vocab.txt'])
def test_folders_of_hugging_face_are_read(made, tmp_path, layout):
  tokenizer = made['wordpiece' if layout == 'vocab.txt' else 'bpe']
  stored = json.loads(tokenizer.to_json())
  entries = sorted(stored['model']['vocab'], key=stored['model']['vocab'].get)
  if layout == 'tokenizer.json':
    # What a Hugging Face folder asks for besides: none of it is wanted in a stream of text.
    cut = {'direction': 'Right', 'max_length': 3, 'strategy': 'LongestFirst', 'stride': 0}
    (tmp_path / layout).write_text(json.dumps({**stored, 'truncation': cut}))
  elif layout == 'vocab.json':
    vocabulary = {**stored['model']['vocab'], '<|endoftext|>': len(entries)}
    (tmp_path / layout).write_text(json.dumps(vocabulary))
    lines = ['#version: 0.2', *map(' '.join, stored['model']['merges'])]
    (tmp_path / 'merges.txt').write_text('\n'.join(lines))
  else:
    (tmp_path / layout).write_text('\n'.join(entries))
  found = tokenization.read(str(tmp_path))
  np.testing.assert_array_equal(found.encode(TEXT), tokenizer.encode(TEXT))
  assert found.decode(found.encode(MIXED)) == tokenizer.decode(tokenizer.encode(MIXED))
  if layout == 'vocab.json':
    assert dict(found.specials) == {'end': 400} and found.size == 401
    assert found.token_bytes()[400] == 0 and found.encode('<|endoftext|>')[0] != 400
  else:
    assert dict(found.specials) == dict(tokenizer.specials)


def test_cased_bert_keeps_capitals(made, tmp_path):
  entries = [*'Aa', '\x85', '[UNK]']
  (tmp_path / 'vocab.txt').write_text('\n'.join(entries) + '\n')
  assert dict(tokenization.read(str(tmp_path)).specials) == {'unknown': 3}
  assert tokenization.read(str(tmp_path)).encode('A a').tolist() == [1, 1]
  (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
  assert tokenization.read(str(tmp_path)).encode('A a').tolist() == [0, 1]


def test_bits_per_byte_only_where_no_byte_is_lost(made):
  stored = json.loads(made['bpe'].to_json())
  for change in (
    {'normalizer': {'type': 'Lowercase'}},
    {'pre_tokenizer': {**stored['pre_tokenizer'], 'add_prefix_space': True}},
    {'decoder': None},
  ):
    found = tokenization.from_json(json.dumps({**stored, **change}))
    assert found.token_bytes() is None, change
  added = {**stored['added_tokens'][0], 'id': 402, 'content': 'naïve', 'special': False}
  plain = tokenization.from_json(
    json.dumps({**stored, 'added_tokens': [*stored['added_tokens'], added]})
  )
  ids = plain.encode('a naïve x')
  assert 402 in ids and plain.token_bytes()[ids].sum() == len('a naïve x'.encode())


def test_a_run_and_a_file_are_read(made, tmp_path):
  for kind, tokenizer in made.items():
    (tmp_path / kind).mkdir()
    path = tmp_path / kind / 'tokenizer.json'
    path.write_text(tokenizer.to_json())
    for place in (path, path.parent):
      assert tokenization.read(str(place)).to_json() == tokenizer.to_json()


@pytest.mark.parametrize(
  ('files', 'text'),
  [
    ({}, 'holds no tokenizer; name a folder with tokenizer.json'),
    ({'vocab.json': '{}'}, 'holds no tokenizer'),
    ({'tokenizer.json': '{'}, 'this is no tokenizer .*take the tokenizer.json of a run'),
    ({'tokenizer.json': '{"kind": "byte"}'}, 'this is no tokenizer'),
    ({'vocab.json': '{', 'merges.txt': ''}, 'vocab.json is no JSON'),
  ],
)
def test_folders_without_a_tokenizer(tmp_path, files, text):
  for name, content in files.items():
    (tmp_path / name).write_text(content)
  with pytest.raises(errors.UserError, match=text) as raised:
    tokenization.read(str(tmp_path))
  assert str(tmp_path) in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize(
  ('kind', 'vocabulary', 'specials', 'text'),
  [
    ('bit', 0, (), r'tokenizer=bit is unknown \(did you mean "byte"\?\)'),
    ('byte', 300, (), 'vocabulary=300 is for .*set it to 0 for byte'),
    ('character', 300, (), 'set it to 0 for character'),
    ('bpe', 255, (), 'vocabulary=255 is too small for bpe.*choose 256 or more'),
    ('wordpiece', 5, BERT, r'vocabulary=5 is too small.*each of 4 characters.*choose 8 or more'),
    ('wordpiece', 400, ('pad',), 'needs an entry for what its vocabulary lacks'),
    ('byte', 0, ('pda',), r'"pda" is no role.*\(did you mean "pad"\?\)'),
    ('byte', 0, ('pad', 'pad'), 'names a role twice'),
  ],
)
def test_mistakes_are_named(kind, vocabulary, specials, text):
  with pytest.raises(errors.UserError, match=text):
    tokenization.train(kind, ['Ab cd a'], vocabulary, specials)


def test_a_character_that_is_lacking_is_named(made):
  exact = tokenization.train('character', ['abc'], 0, ())
  with pytest.raises(errors.UserError, match="lacks 'd', character 3 of 'abd'"):
    exact.encode('abd')
  with pytest.raises(errors.UserError, match="lacks '😀'"):  # above all that it knows
    exact.encode('😀')
  assert made['character'].encode('日')[0] == made['character'].specials['unknown']
  for tokenizer in (exact, *made.values()):
    with pytest.raises(errors.UserError, match=r'\\udce9.*UTF-8'):  # what a terminal may give
      tokenizer.encode('\udce9')
