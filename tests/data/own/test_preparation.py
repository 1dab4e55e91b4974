"""The cache of files of one's own: once for a content, whole or not at all."""

import errno
import json
import os
import shutil

import pytest

from data.folders import cache_dir
from data.own import preparation
from data.own.options import Own
from data.own.preparation import open_prepared
from errors import UserError
from tests.data.own.files_of_ours import opened, write_classes, write_picture


def data_sets():
  return sorted(path.name for path in (cache_dir() / 'own').glob('folder_*'))


def fail(*_):
  raise AssertionError('is encoded or hashed again')


def test_files_are_read_once_until_they_change(tmp_path, monkeypatch):
  root = tmp_path / 'x'
  write_classes(root, each=8)
  first = opened(f'folder:{root}').spec
  with monkeypatch.context() as patch:
    patch.setitem(preparation._READERS, 'folder', fail)
    assert opened(f'folder:{root}').spec == first
  write_picture(root / 'cat' / '0.png', 999)
  changed = opened(f'folder:{root}').spec
  assert changed.identity != first.identity and len(data_sets()) == 2


def test_the_same_content_elsewhere_is_not_encoded_again(tmp_path, monkeypatch):
  write_classes(tmp_path / 'x', each=8)
  first = opened(f'folder:{tmp_path}/x').spec
  shutil.copytree(tmp_path / 'x', tmp_path / 'y')
  (tmp_path / 'y' / 'cat' / '0.png').rename(tmp_path / 'y' / 'cat' / 'renamed.png')
  monkeypatch.setattr(preparation, '_encode', fail)
  assert opened(f'folder:{tmp_path}/y').spec.identity == first.identity
  assert len(data_sets()) == 1


def test_a_picture_that_moves_to_another_class_is_another_content(tmp_path):
  write_classes(tmp_path / 'x', each=8)
  first = opened(f'folder:{tmp_path}/x').spec
  (tmp_path / 'x' / 'cat' / '0.png').rename(tmp_path / 'x' / 'dog' / 'new.png')
  assert opened(f'folder:{tmp_path}/x').spec.identity != first.identity


def test_options_are_part_of_the_content(tmp_path):
  write_classes(tmp_path / 'x', each=8)
  for image in ({}, dict(channels=1), dict(size=(4,)), dict(size=(4,), resize='pad')):
    opened(f'folder:{tmp_path}/x', image=image)
  assert len(data_sets()) == 4


def test_the_cache_is_enough_when_the_files_are_gone(tmp_path, monkeypatch):
  write_classes(tmp_path / 'x', each=8)
  monkeypatch.chdir(tmp_path)
  first = opened('folder:x', 'test')
  shutil.rmtree(tmp_path / 'x')
  again = opened('folder:x', 'test')
  assert again.spec == first.spec and (again.read([0])['image'] == first.read([0])['image']).all()
  with pytest.raises(UserError, match='no copy that was made of it with these options'):
    opened('folder:x', image=dict(size=(4,)))


def test_an_encoding_that_was_killed_is_not_used(tmp_path, monkeypatch):
  write_classes(tmp_path / 'x', each=8)

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(os, 'rename', killed)
    with pytest.raises(KeyboardInterrupt):
      opened(f'folder:{tmp_path}/x')
  assert data_sets() == []
  half = cache_dir() / 'own' / '.preparing-x'  # as SIGKILL leaves it
  half.mkdir()
  assert len(opened(f'folder:{tmp_path}/x')) and len(data_sets()) == 1


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 'is full; free some space'),
    (RuntimeError('write() failed: No space left on device; writing x'), 'No space left on device'),
  ],
)
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, error, message):
  import tensorflow_datasets as tfds

  write_classes(tmp_path / 'x', each=8)

  def full(*_, **__):
    raise error

  monkeypatch.setattr(tfds.core.SequentialWriter, 'add_examples', full)
  with pytest.raises(UserError, match=rf'cannot be encoded in .*{message}.*ATELIER_CACHE'):
    opened(f'folder:{tmp_path}/x')
  assert data_sets() == [] and not [*(cache_dir() / 'own').glob('.preparing-*/*')]


def test_a_damaged_index_is_made_again(tmp_path):
  write_classes(tmp_path / 'x', each=8)
  first = opened(f'folder:{tmp_path}/x').spec
  (index,) = (cache_dir() / 'own' / 'index').iterdir()
  for content in ('', '[]', '{"data_set": 3}'):
    index.write_text(content)
    assert opened(f'folder:{tmp_path}/x').spec == first
    assert json.loads(index.read_text())['data_set'] == data_sets()[0]


def test_what_is_printed(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('data.own.progress._FIRST_PAUSE', 0.0)
  write_classes(tmp_path / 'x', each=8)
  prepared = open_prepared(f'folder:{tmp_path}/x', 'folder', f'{tmp_path}/x', Own())
  printed = capsys.readouterr().err
  assert f'reading folder:{tmp_path}/x, once: 1 of 16 pictures' in printed
  assert f'encoding folder:{tmp_path}/x, once: 1 of 16 pictures' in printed
  sizes = {split: sum(lengths) for split, lengths in prepared.shard_lengths().items()}
  assert f'train {sizes["train"]}, test {sizes["test"]} pictures in 2 classes (cat, dog)' in printed
