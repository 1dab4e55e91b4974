"""The cache of decoded arrays: found again, redone when damaged, done without when not writable."""

import os
import subprocess
import sys

import numpy as np
import pytest

from data import folders, source


@pytest.fixture
def mnist5k(prepared_root):
  """Fewer examples than there are: these tests decode them again and again."""
  return source.open_source('mnist5k', 'train[:400]', str(prepared_root))


def count_reads(monkeypatch):
  calls = []
  read = source.Source.read
  monkeypatch.setattr(
    source.Source, 'read', lambda self, indices: calls.append(1) or read(self, indices)
  )
  return calls


def cached_files(name):
  return list((folders.cache_dir() / 'arrays').glob(f'*/{name}'))


def assert_same(got, wanted):
  assert got.keys() == wanted.keys()
  for name in wanted:
    assert got[name].dtype == wanted[name].dtype
    np.testing.assert_array_equal(got[name], wanted[name])


def test_a_split_is_decoded_once(mnist5k, monkeypatch):
  calls = count_reads(monkeypatch)
  first = mnist5k.load()
  decoded = len(calls)
  assert first['image'].shape == (400, 28, 28, 1) and first['image'].dtype == np.uint8
  assert first['label'].shape == (400,) and first['label'].dtype == np.int32
  assert_same(mnist5k.load(), first)
  assert decoded and len(calls) == decoded
  some = [3, 399, 0]
  assert_same({name: array[some] for name, array in first.items()}, mnist5k.read(some))


@pytest.mark.parametrize('damage', ['cut', 'flip', 'dtype', 'noise', 'remove', 'no sums'])
def test_damage_is_mended(mnist5k, monkeypatch, damage):
  first = mnist5k.load()
  (image,) = cached_files('image.npy')
  if damage == 'cut':
    os.truncate(image, 1000)
  elif damage == 'flip':
    raw = bytearray(image.read_bytes())
    raw[-1] ^= 1
    image.write_bytes(raw)
  elif damage == 'dtype':
    raw = image.read_bytes()
    assert raw.count(b"'|u1'") == 1
    image.write_bytes(raw.replace(b"'|u1'", b"'|i1'"))
  elif damage == 'noise':
    image.write_bytes(b'PK\x03\x04' + bytes(100))  # taken for an archive
  elif damage == 'remove':
    image.unlink()
  else:
    (image.parent / 'sums.json').write_text('{')
  calls = count_reads(monkeypatch)
  assert_same(mnist5k.load(), first)
  decoded = len(calls)
  assert_same(mnist5k.load(), first)
  assert decoded and len(calls) == decoded


def test_another_split_is_another_entry(prepared_root, mnist5k):
  mnist5k.load()
  test = source.open_source('mnist5k', 'test', str(prepared_root)).load()
  assert test['image'].shape == (1000, 28, 28, 1)
  assert len(cached_files('image.npy')) == 2


def test_prepared_again_is_decoded_again(mnist5k, monkeypatch):
  mnist5k.load()
  monkeypatch.setattr(mnist5k, 'stamp', 'another')
  calls = count_reads(monkeypatch)
  mnist5k.load()
  assert calls


def test_a_cache_that_cannot_be_written_is_a_warning(mnist5k, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'file'))
  with pytest.warns(UserWarning, match='not cached'):
    assert len(mnist5k.load()['image']) == 400


def test_leftovers_of_killed_processes_go(mnist5k):
  parent = folders.cache_dir() / 'arrays'
  old, young = parent / 'a.part', parent / 'b.part'
  old.mkdir(parents=True)
  young.mkdir()
  os.utime(old, (0, 0))
  mnist5k.load()
  assert not old.exists() and young.exists()


CODE = """
import sys
from data import source
got = source.open_source('mnist5k', sys.argv[2], sys.argv[1]).load()
print(got['image'].shape[0], *(name in sys.modules for name in sys.argv[3:]))
"""


def run(root, split, *modules):
  command = [sys.executable, '-c', CODE, str(root), split, *modules]
  return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_what_is_cached_needs_no_tfds_and_nothing_needs_tensorflow(prepared_root):
  names = 'tensorflow', 'tensorflow_datasets', 'grain', 'PIL', 'mlxtend', 'sklearn'
  assert run(prepared_root, 'train', *names[:2]) == ['4000', 'False', 'True']
  assert run(prepared_root, 'train', *names) == ['4000', *['False'] * 6]
