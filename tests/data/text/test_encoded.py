"""Encoded once, kept, and never taken for something else."""

import dataclasses
import pickle

import numpy as np
import pytest

from data import folders
from data.text import encoded, options, tokenization
from data.text.encoded import kinds_of_tokens

OPTIONS = options.Text('byte', 0, (), 'windows', 32, True, 0, False)


def opened(examples, tokenizer='', training=True, **changed):
  return options.open_text(examples, dataclasses.replace(OPTIONS, **changed), tokenizer, training)


def test_kinds_of_tokens_by_hand():
  raw = b'if  x:\n  "a b"'
  kind_start, kind = [0, 2, 4, 5, 6, 9], np.array([2, 0, 1, 5, 0, 4])
  # 'if', '  x', ':', '\n ', ' ', ' ', '"a', ' ', 'b"'
  starts = np.array([0, 2, 5, 6, 7, 8, 9, 11, 12])
  got = kinds_of_tokens(raw, starts, kind_start, kind)
  assert got.tolist() == [2, 1, 5, 0, 0, 0, 4, 4, 4] and got.dtype == np.int8
  assert kinds_of_tokens(b'', starts[:0], kind_start[:0], kind[:0]).size == 0


def test_made_once_and_only_of_what_is_trained_on(names, monkeypatch):
  changed = {'tokenizer': 'bpe', 'vocabulary': 300}
  first = options.open_text(names(), dataclasses.replace(OPTIONS, **changed), '', True)
  monkeypatch.setattr(tokenization, 'train', None)
  monkeypatch.setattr(encoded, '_encode', None)
  again = options.open_text(names(), dataclasses.replace(OPTIONS, **changed), '', True)
  assert again.spec == first.spec
  np.testing.assert_array_equal(again.read([7])['tokens'], first.read([7])['tokens'])
  with pytest.raises(ValueError, match='made from the training split'):
    options.open_text(names('test'), dataclasses.replace(OPTIONS, **changed), '', False)


def test_damage_is_mended(names):
  wanted = opened(names()).read(range(700))
  for path in (folders.cache_dir() / 'text').glob('*/*.npy'):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
  np.testing.assert_array_equal(opened(names()).read(range(700))['tokens'], wanted['tokens'])


def test_a_cache_that_cannot_be_written_is_a_warning(names, tmp_path, monkeypatch):
  wanted = opened(names()).read(range(50))
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'file'))
  with pytest.warns(UserWarning, match='not cached'):
    made = opened(names())
  for one in (made, pickle.loads(pickle.dumps(made))):
    np.testing.assert_array_equal(one.read(range(50))['tokens'], wanted['tokens'])


def test_workers_are_sent_the_path_and_not_the_text(names):
  made = opened(names())
  made.read([0])
  sent = pickle.dumps(made)
  assert len(sent) < 5_000 < made.nbytes
  np.testing.assert_array_equal(pickle.loads(sent).read([3])['tokens'], made.read([3])['tokens'])


def test_another_tokenizer_or_data_is_another_entry(names, monkeypatch):
  spec = opened(names()).spec
  for one in (
    opened(names('train[:4000]')),
    opened(names(), specials=('end',)),
    opened(names(), tokenization.train('byte', [], 0, ('pad',)).to_json()),
  ):
    assert one.spec.identity != spec.identity
  before = set((folders.cache_dir() / 'text').iterdir())
  prepared_again = names()
  monkeypatch.setattr(prepared_again, 'stamp', 'another')
  opened(prepared_again)
  assert set((folders.cache_dir() / 'text').iterdir()) > before
