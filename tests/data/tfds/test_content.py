"""The identity of data is that of its examples: not of its files, and never from a stale cache."""

import os
import random
import shutil

import numpy as np
import PIL.Image
import pytest

import errors
from data import folders, source
from data.selection import ClassSubset, Fold, Joined
from data.tfds import content
from data.tfds.source import Source
from tests.data.tiny_sets import prepare

LABELS = [0, 1, 2] * 4


def write(root, labels=LABELS, class_names=('a', 'b', 'c'), more=0.5, images=None):
  """Prepares one image of each label, with a column and a feature that is not read."""
  import tensorflow_datasets as tfds

  features = {
    'image': tfds.features.Image(shape=(2, 2, 1)),
    'label': tfds.features.ClassLabel(names=class_names),
    'group': tfds.features.Scalar(np.int64),
    'text': tfds.features.Text(),
    'weights': tfds.features.Tensor(shape=(2,), dtype=np.float32),
  }
  grays = images or range(len(labels))
  examples = [
    {
      'image': PIL.Image.new('L', (2, 2), gray), 'label': label, 'group': i % 2,
      'text': f'text {i}', 'weights': np.array([i, more], np.float32),
    }
    for i, (gray, label) in enumerate(zip(grays, labels))
  ]  # fmt: skip
  prepare(root, 'some', features, {'train': examples, 'test': examples[:3]})
  return str(root)


def identity(root, split='train', **options):
  return source.open_source('some', split, str(root), **options).spec.identity


def test_two_preparations_of_the_same_examples_agree(tmp_path):
  first = identity(write(tmp_path / 'a'))
  assert identity(write(tmp_path / 'b')) == first
  shutil.copytree(tmp_path / 'a', tmp_path / 'c')
  assert identity(tmp_path / 'c') == first
  assert identity(tmp_path / 'a', 'train[:12]') == first  # all there are, in their order


def test_order_of_features_and_number_of_files_do_not_matter(tmp_path):
  """The same examples, written by hand into two files, with their features in another order."""
  import json

  from array_record.python import array_record_module
  from tensorflow_datasets.proto import tf_example_pb2

  first = identity(write(tmp_path / 'a'))
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  (folder,) = (tmp_path / 'b' / 'some').iterdir()
  path = folder / 'some-train.array_record-00000-of-00001'
  reader = array_record_module.ArrayRecordReader(str(path))
  records = [reader.read([i])[0] for i in range(12)]
  reader.close()
  path.unlink()
  for number, part in enumerate((records[:5], records[5:])):
    name = f'some-train.array_record-{number:05}-of-00002'
    writer = array_record_module.ArrayRecordWriter(str(folder / name), 'group_size:1')
    for record in part:
      features = tf_example_pb2.Example.FromString(record).features.feature
      names = random.Random(0).sample(sorted(features), len(features))
      mixed = b''.join(_entry(name, features[name].SerializeToString()) for name in names)
      again = _field(mixed)
      assert again != record and tf_example_pb2.Example.FromString(again).features.feature
      writer.write(again)
    writer.close()
  info = json.loads((folder / 'dataset_info.json').read_text())
  (train,) = (split for split in info['splits'] if split['name'] == 'train')
  train['shardLengths'] = ['5', '7']
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  got = source.open_source('some', 'train', str(tmp_path / 'b'))
  assert got.column('label').tolist() == LABELS
  assert got.spec.identity == first


def test_features_are_hashed_by_name():
  from tensorflow_datasets.proto import tf_feature_pb2

  number = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[1, 2]))
  texts = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[b'a', b'bc']))
  other = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[b'ab', b'c']))
  empty = tf_feature_pb2.Feature()
  assert content._canonical({'a': number, 'b': texts}) == content._canonical(
    {'b': texts, 'a': number}
  )
  each = [{'a': value} for value in (number, texts, other, empty)]
  each += [{}, {'b': number}, {'a': number, 'b': empty}]
  assert len({content._canonical(features) for features in each}) == len(each)


def _field(content):
  """Field 1 of a protocol buffer, a message."""
  length, size = [], len(content)
  while size > 127:
    length.append(size % 128 | 128)
    size //= 128
  return bytes([0x0A, *length, size]) + content


def _entry(name, feature):
  """An entry of the map from names to features."""
  value = _field(feature)
  return _field(_field(name.encode()) + b'\x12' + value[1:])


@pytest.mark.parametrize(
  'changed',
  [
    dict(labels=[0, 1, 2] * 3 + [0, 1, 1]),
    dict(labels=[0, 2, 1] * 4),
    dict(class_names=('b', 'a', 'c')),
    dict(more=0.25),
    dict(images=[*range(11), 12]),
    dict(images=[1, 0, *range(2, 12)]),
  ],
)
def test_any_change_of_an_example_is_another_identity(tmp_path, changed):
  assert identity(write(tmp_path / 'a')) != identity(write(tmp_path / 'b', **changed))


def test_splits_columns_and_views_have_their_own(tmp_path):
  root = write(tmp_path)
  whole = source.open_source('some', 'train', root)
  test = source.open_source('some', 'test', root)
  found = [
    whole.spec.identity,
    test.spec.identity,
    identity(root, 'train[1:]'),
    identity(root, columns=('group',)),
    ClassSubset(whole, (0, 1)).spec.identity,
    ClassSubset(whole, (1, 0)).spec.identity,
    *(Fold(whole, fold, 3, held).spec.identity for fold in range(3) for held in (True, False)),
    Joined([whole, test]).spec.identity,
    Joined([test, whole]).spec.identity,
  ]
  assert len({*found}) == len(found)


@pytest.mark.parametrize('view', [dict(classes=(0,)), dict(name='some+some')])
def test_views_change_with_their_parts(tmp_path, view):
  roots = write(tmp_path / 'a'), write(tmp_path / 'b', labels=[0, 1, 2] * 3 + [0, 1, 1])
  options = {'name': 'some', 'split': 'train', **view}
  found = [source.open_source(data_dir=root, **options).spec.identity for root in roots]
  assert found[0] != found[1]


def count_hashes(monkeypatch):
  calls, real = [], content.hash_examples
  monkeypatch.setattr(content, 'hash_examples', lambda *args: calls.append(1) or real(*args))
  return calls


def test_a_set_is_hashed_once_until_a_file_changes(tmp_path, monkeypatch):
  calls = count_hashes(monkeypatch)
  root = write(tmp_path / 'a')
  first = identity(root)
  with monkeypatch.context() as patch:
    patch.setattr(Source, '_open', lambda self: pytest.fail('opened'))
    assert identity(root) == first and len(calls) == 1
  for path in tmp_path.rglob('*-train.array_record*'):
    os.utime(path, (0, 0))
  assert identity(root) == first and len(calls) == 2
  # Prepared again in the same place, with one label flipped.
  shutil.rmtree(tmp_path / 'a')
  assert identity(write(tmp_path / 'a', labels=[1, 1, 2, *LABELS[3:]])) != first
  assert len(calls) == 3


def test_a_damaged_entry_of_the_cache_is_not_believed(tmp_path, monkeypatch):
  root = write(tmp_path)
  first = identity(root)
  (entry,) = (folders.cache_dir() / 'content').iterdir()
  written = entry.read_bytes()
  flipped = (b'1' if written.startswith(b'0') else b'0') + written[1:]
  for damage in (b'', b'\xff', b'0' * 63, flipped):
    entry.write_bytes(damage)
    assert identity(root) == first
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'file'))  # one that cannot be written
  assert identity(root) == first


def test_progress_is_told_of_a_large_set(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(content, '_FIRST_PAUSE', -1.0)
  identity(write(tmp_path))
  assert 'hashing some/1.0.0 train, once: 12 of 12 examples\n' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('damage', 'reason'),
  [
    (lambda path: path.unlink(), 'there is no some-train.array_record-00000-of-00001'),
    (lambda path: path.write_bytes(b''), 'ArrayRecord file should be at least 64KB'),
    (lambda path: os.truncate(path, path.stat().st_size - 1), '(Corrupted|Invalid)'),
    (lambda path: path.write_bytes(os.urandom(path.stat().st_size)), '(Corrupted|Invalid)'),
  ],
)
def test_a_record_file_that_cannot_be_read(tmp_path, damage, reason):
  root = write(tmp_path)
  (path,) = tmp_path.rglob('*-train.array_record*')
  damage(path)
  with pytest.raises(errors.UserError, match=rf'some/1.0.0 is damaged \({reason}.*\); delete it'):
    source.open_source('some', 'train', root)


def test_a_record_file_that_is_damaged_after_it_was_opened(tmp_path):
  root = write(tmp_path)
  source.open_source('some', 'train', root)
  got = source.open_source('some', 'train', root)  # from the cache: nothing is open
  (path,) = tmp_path.rglob('*-train.array_record*')
  path.unlink()
  with pytest.raises(errors.UserError, match=r'some/1.0.0 is damaged'):
    got.read([0])


def test_fewer_records_than_the_description_says(tmp_path):
  root = write(tmp_path)
  (path,) = tmp_path.rglob('dataset_info.json')
  path.write_text(path.read_text().replace('"12"', '"13"'))
  with pytest.raises(errors.UserError, match='holds 12 examples, and 13 are described'):
    source.open_source('some', 'train', root)


def test_a_record_that_is_no_example():
  with pytest.raises(ValueError, match='record 1 is not an example'):
    content.hash_examples([[b'', b'noise']], 2, 'noise')
