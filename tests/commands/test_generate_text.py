"""Texts as they grow: what is shown piece by piece is the text, and each token is decoded once."""

import numpy as np
import pytest

from commands import generate_text
from commands.generate_text import Decoder
from data.text import tokenization

TEXT = "René said: \"∀ 👍 don't, won't\" — a'b.\n\tx = 1.5" * 3
ROLES = ('end', 'unknown')


def tokenizer_of(kind):
  size = {'bpe': 280, 'wordpiece': 120}.get(kind, 0)
  return tokenization.train(kind, [TEXT], size, ROLES)


class Counting:
  """A tokenizer that counts the tokens it decodes."""

  def __init__(self, tokenizer):
    self.specials, self.decoded, self._tokenizer = tokenizer.specials, 0, tokenizer

  def decode(self, ids):
    self.decoded += len(ids)
    return self._tokenizer.decode(ids)


def shown(decoder, row, stride):
  """The pieces of a text that grows by `stride` tokens at a time."""
  pieces = []
  for position in range(stride, len(row) + stride, stride):
    decoder.feed(row[:position])
    pieces.append(decoder.grown())
  return [*pieces, decoder.rest()]


@pytest.mark.parametrize('kind', ['byte', 'character', 'bpe', 'wordpiece'])
@pytest.mark.parametrize('stride', [1, 2, 8])
def test_the_pieces_are_the_text(kind, stride):
  tokenizer = tokenizer_of(kind)
  row = tokenizer.encode(TEXT)
  counting = Counting(tokenizer)
  decoder = Decoder(counting)
  pieces = shown(decoder, row, stride)
  assert ''.join(pieces) == tokenizer.decode(row) and '\ufffd' not in ''.join(pieces)
  # Each token a few times, however long the text is.
  assert counting.decoded < 12 * len(row)
  assert decoder.text().text == tokenizer.decode(row)
  np.testing.assert_array_equal(decoder.text().tokens, row)


def test_bytes_that_are_no_text_are_shown_in_the_end():
  tokenizer = tokenizer_of('byte')
  row = np.array([65, 0xF0, 0x9F, 66, 0xF0, 0x9F], np.int32)
  decoder = Decoder(tokenizer)
  assert shown(decoder, row, 1) == ['A', '', '', '\ufffdB', '', '', '\ufffd']


@pytest.mark.parametrize('kind', ['byte', 'bpe'])
def test_a_text_ends_at_the_first_end_after_its_start(kind):
  tokenizer = tokenizer_of(kind)
  end = tokenizer.specials['end']
  word, more = tokenizer.encode('one'), tokenizer.encode('two')
  decoder = Decoder(tokenizer)
  decoder.feed(np.array([end, *word]))
  assert not decoder.ended
  decoder.feed(np.array([end, *word, end, *more]))
  assert decoder.ended and decoder.grown() == decoder.text().text == 'one'
  assert decoder.rest() == ''


def test_text_i_is_the_same_whatever_their_number_is(tmp_path, monkeypatch, capsys):
  from commands.sample_run import Request, sample_run
  from tests.golden import short_runs

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
