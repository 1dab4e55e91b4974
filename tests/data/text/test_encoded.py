"""Encoded once, kept, and never taken for something else."""

import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest

from data import column_files, folders
from data.examples import Examples
from data.spec import Spec
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


class Generated(Examples):
  """Documents of many words, made when they are read; counts how many were."""

  def __init__(self, n, size, label=False):
    features = {'text': ((), 'string'), **({'label': ((), 'int32')} if label else {})}
    self.spec = Spec('generated', 'train', n, features, 0, f'{n} {size}')
    self.stamp, self._size, self.made = '', size, []

  def read(self, indices):
    self.made += indices
    texts = np.empty(len(indices), object)
    texts[:] = [f'{i:05} words of a text, '.ljust(self._size, 'e') for i in indices]
    found = {'text': texts, 'label': np.asarray(indices, np.int32)}
    return {name: found[name] for name in self.spec.features}


def test_memory_does_not_grow_with_the_text(monkeypatch):
  monkeypatch.setattr(encoded, '_BLOCK_BYTES', 2**18)
  tokenizer = tokenization.train('byte', [], 0, ('end',))
  texts = Generated(512, 2**16)
  tracemalloc.start()
  try:
    made = encoded.encode(texts, tokenizer, 'key', kinds=False)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert len(made.tokens) == 512 * (2**16 + 1)
  assert peak < len(made.tokens) // 4, peak
  np.testing.assert_array_equal(made.ends, (2**16 + 1) * np.arange(1, 513))
  assert tokenizer.decode(made.tokens[made.ends[7] : made.ends[7] + 13]) == '00008 words o'


@pytest.mark.parametrize('kind', ['character', pytest.param('wordpiece', marks=pytest.mark.slow)])
def test_a_tokenizer_is_trained_without_all_texts_in_memory(kind, monkeypatch):
  monkeypatch.setattr(encoded, '_BLOCK_BYTES', 2**18)
  vocabulary, specials = (60, ('unknown',)) if kind == 'wordpiece' else (0, ())
  tracemalloc.start()
  try:
    encoded.train_tokenizer(Generated(256, 2**16), kind, vocabulary, specials)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 256 * 2**16 // 4, peak


def test_a_killed_encoding_is_gone_on_with(monkeypatch):
  monkeypatch.setattr(column_files, '_NOTE_EVERY', 0.0)
  monkeypatch.setattr(encoded, '_BLOCK', 8)
  tokenizer = tokenization.train('byte', [], 0, ('end',))
  wanted = encoded.encode(Generated(100, 50, label=True), tokenizer, 'wanted', kinds=False)
  texts = Generated(100, 50, label=True)
  read = texts.read

  def killed(indices):
    if indices[0] > 40:
      raise KeyboardInterrupt
    return read(indices)

  with monkeypatch.context() as patch:
    patch.setattr(texts, 'read', killed)
    with pytest.raises(KeyboardInterrupt):
      encoded.encode(texts, tokenizer, 'key', kinds=False)
  done = len(texts.made)
  assert 0 < done < 100
  texts.made.clear()
  got = encoded.encode(texts, tokenizer, 'key', kinds=False)
  assert texts.made == [*range(done, 100)]
  np.testing.assert_array_equal(got.tokens, wanted.tokens)
  np.testing.assert_array_equal(got.ends, wanted.ends)
  np.testing.assert_array_equal(got.features['label'], np.arange(100))


@pytest.mark.parametrize('kinds', [True, False])
def test_blocks_of_any_size_give_the_same(library, kinds, monkeypatch):
  tokenizer = tokenization.train('byte', [], 0, ('end',))
  wanted = encoded.encode(library, tokenizer, 'a', kinds=kinds)
  monkeypatch.setattr(encoded, '_BLOCK', 3)
  got = encoded.encode(library, tokenizer, 'b', kinds=kinds)
  assert got._folder != wanted._folder
  assert (got.kind is None) == (not kinds)
  for name, values in wanted._arrays().items():
    assert got._arrays()[name].dtype == values.dtype
    np.testing.assert_array_equal(got._arrays()[name], values)
