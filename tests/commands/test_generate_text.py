"""Texts decoded as they grow: what is printed is what the whole decodes to."""

import numpy as np
import pytest

from commands import generate_text
from commands.generate_text import Decoder
from commands.sample_run import Request, sample_run
from data.text import tokenization
from tests.golden import short_runs

TEXTS = (
  'Größe, naïve façade',
  '日本語 and 🙂🙃 emoji 👩\u200d🚀!',
  "don't stop . it 's (very) odd",
)
KINDS = {
  'byte': ('byte', 0, ('end', 'pad')),
  'character': ('character', 0, ('end', 'pad')),
  'bpe': ('bpe', 300, ('end', 'pad')),
  'wordpiece': ('wordpiece', 120, ('end', 'pad', 'unknown')),
}
kinds = pytest.mark.parametrize('kind', KINDS)


@pytest.fixture(scope='module')
def tokenizers():
  """A tokenizer of every kind."""
  return {
    name: tokenization.train(kind, TEXTS * 3, size, specials)
    for name, (kind, size, specials) in KINDS.items()
  }


def printed(tokenizer, tokens, stride):
  """The pieces that a text gives `stride` tokens at a time, and the decoder after them."""
  decoder, row = Decoder(tokenizer), np.asarray(tokens, np.int32)
  stops = [*range(stride, len(row), stride), len(row)]
  return [decoder.feed(row[:stop]) for stop in stops] + [decoder.rest()], decoder


@kinds
@pytest.mark.parametrize('stride', [1, 2, 3, 1000])
def test_pieces_come_to_the_whole(kind, stride, tokenizers):
  tokenizer = tokenizers[kind]
  for text in (*TEXTS, ' '.join(TEXTS)):
    tokens = tokenizer.encode(text)
    pieces, decoder = printed(tokenizer, tokens, stride)
    whole = tokenizer.decode(tokens)
    assert ''.join(pieces) == whole == decoder.finish().text
    # Nothing waits for the end of a text whose characters are all complete.
    assert pieces[-1] == '' and not any('\ufffd' in piece for piece in pieces)
    assert stride > 1 or sum(map(bool, pieces)) > len(text) // 6
    np.testing.assert_array_equal(decoder.finish().tokens, tokens)


@kinds
@pytest.mark.parametrize('seed', range(8))
def test_pieces_of_random_tokens_come_to_the_whole(kind, seed, tokenizers):
  """A model that has learned little gives bytes that are no characters, and special entries."""
  tokenizer = tokenizers[kind]
  tokens = np.random.default_rng(seed).integers(0, tokenizer.size, 60)
  tokens = tokens[tokens != tokenizer.specials['end']]
  for stride in (1, 4, 1000):
    assert ''.join(printed(tokenizer, tokens, stride)[0]) == tokenizer.decode(tokens)


def test_a_character_is_printed_once_it_is_whole(tokenizers):
  tokens = tokenizers['byte'].encode('a🙂b')
  assert printed(tokenizers['byte'], tokens, 1)[0] == ['a', '', '', '', '🙂', 'b', '']


def test_a_text_that_ends_within_a_character_is_printed_to_its_end(tokenizers):
  tokens = tokenizers['byte'].encode('a🙂')[:-1]
  pieces, decoder = printed(tokenizers['byte'], tokens, 1)
  assert pieces == ['a', '', '', '', '\ufffd'] and decoder.finish().text == 'a\ufffd'
  assert decoder.rest() == ''


@kinds
@pytest.mark.parametrize('many', [4, 9])
def test_entries_without_a_text_do_not_change_what_comes_after_them(kind, many, tokenizers):
  tokenizer = tokenizers[kind]
  start, pad = tokenizer.encode('stop odd'), [tokenizer.specials['pad']] * many
  tokens = np.concatenate([start, pad, start])
  assert ''.join(printed(tokenizer, tokens, 1)[0]) == tokenizer.decode(tokens)


@kinds
@pytest.mark.parametrize('stride', [1, 4, 1000])
def test_nothing_is_printed_after_the_end(kind, stride, tokenizers):
  tokenizer = tokenizers[kind]
  end, text = tokenizer.specials['end'], tokenizer.encode('stop')
  pieces, decoder = printed(tokenizer, [end, *text, end, *text, end, *text], stride)
  assert decoder.ended and ''.join(pieces) == tokenizer.decode(text) == decoder.finish().text
  np.testing.assert_array_equal(decoder.finish().tokens, text)


def test_a_text_goes_on_until_an_end_after_its_first_token(tokenizers):
  tokenizer = tokenizers['byte']
  end, text = tokenizer.specials['end'], tokenizer.encode('stop')
  assert not printed(tokenizer, [end, *text], 1)[1].ended
  assert printed(tokenizer, [*text, end], 1)[1].ended


@pytest.mark.slow
def test_text_i_is_the_same_whatever_their_number_is(tmp_path, monkeypatch, capsys):
  workdir = str(short_runs.folder('causal_lm'))
  request = Request(workdir, seed=1, options={'prompt': 'An', 'length': 12})
  made = {}
  for num, chunk in ((5, 5), (5, 2), (1, 2)):
    monkeypatch.setattr(generate_text, '_CHUNK', chunk)
    out = f'{tmp_path}/{num}_{chunk}.npz'
    sample_run(request._replace(num=num, out=out))
    made[num, chunk] = np.load(out)['tokens']
    assert f'{num} texts, step' in capsys.readouterr().out
  np.testing.assert_array_equal(made[5, 2], made[5, 5])
  alone = made[1, 2][0]
  np.testing.assert_array_equal(made[5, 2][0][: len(alone)], alone)
  assert len({row.tobytes() for row in made[5, 5]}) == 5
