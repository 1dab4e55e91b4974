"""A data set in a bucket is read as on a disk: what a split needs is copied once, and checked."""

import pickle
import shutil

import numpy as np
import pytest

import errors
import files
from data import folders, source
from data.tfds import catalog, dataset_writer

ROOT = 'gs://some/tfds'
# Seven images in files of three.
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)
LABELS = np.arange(7, dtype=np.int32) % 2


@pytest.fixture
def drawn(bucket, monkeypatch):
  """A data set that was written into the bucket; its folder."""
  monkeypatch.setattr(dataset_writer, '_IMAGES_PER_FILE', 3)
  chunks = [{'image': IMAGES, 'label': LABELS}]
  target = dataset_writer.target(f'{ROOT}/drawn')
  return dataset_writer.write(target, chunks, 7, IMAGES.shape[1:], ('a', 'b'), 'Made up.')


def copied():
  return sorted(path.name for path in (folders.cache_dir() / 'copies').rglob('*.array_record*'))


def test_a_data_set_is_uploaded_with_its_description_last(drawn, bucket):
  assert str(drawn) == f'{ROOT}/drawn/1.0.0'
  names = [name.removeprefix('some/tfds/drawn/1.0.0/') for name in bucket.uploads]
  assert names[-1] == 'dataset_info.json' and len(names) == 3 + 3
  assert not list((folders.cache_dir() / 'uploads').glob('*/*'))
  with pytest.raises(errors.UserError, match=r'gs://some/tfds/drawn exists already'):
    dataset_writer.target(f'{ROOT}/drawn')


def test_it_is_read_as_on_a_disk(drawn, capfd):
  got = source.open_source('drawn', 'train', ROOT)
  assert got.spec.class_names == ('a', 'b') and len(got) == 7
  read = got.read([6, 0])
  np.testing.assert_array_equal(read['image'], IMAGES[[6, 0]])
  np.testing.assert_array_equal(got.load()['image'], IMAGES)
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(got)).column('label'), LABELS)
  lines = capfd.readouterr().err.splitlines()
  assert [line.split('(')[1][:6] for line in lines] == ['1 of 3', '2 of 3', '3 of 3']
  assert lines[0].startswith(f'copying {ROOT}/drawn/1.0.0/drawn-train.array_record-00000-of-00003')


def test_what_was_hashed_is_opened_without_a_copy(drawn):
  first = source.open_source('drawn', 'train', ROOT).spec
  shutil.rmtree(folders.cache_dir() / 'copies')
  assert source.open_source('drawn', 'train', ROOT).spec == first
  assert copied() == []
  chunks = [{'image': IMAGES, 'label': 1 - LABELS}]
  drawn.parent.rmtree()
  target = dataset_writer.target(f'{ROOT}/drawn')
  dataset_writer.write(target, chunks, 7, IMAGES.shape[1:], ('a', 'b'), 'Made up.')
  assert source.open_source('drawn', 'train', ROOT).spec.identity != first.identity


def test_only_the_files_of_the_split_are_copied(drawn):
  got = source.open_source('drawn', 'train[4:5]', ROOT)
  np.testing.assert_array_equal(got.read([0])['image'], IMAGES[4:5])
  assert copied() == ['drawn-train.array_record-00001-of-00003']


def test_splits_that_only_tfds_understands(drawn):
  got = source.open_source('drawn', 'train[:1]+train[6:]', ROOT)
  np.testing.assert_array_equal(got.read([0, 1])['image'], IMAGES[[0, 6]])
  assert len(copied()) == 2


def test_it_is_copied_once_until_it_is_prepared_again(drawn, bucket):
  for again in (False, False, True):
    if again:
      files.write_bytes(drawn / 'dataset_info.json', (drawn / 'dataset_info.json').read_bytes())
    got = source.open_source('drawn', 'train', ROOT)
    np.testing.assert_array_equal(got.read(range(7))['image'], IMAGES)
    assert len([name for name in bucket.downloads if 'array_record' in name]) == 3 + 3 * again


@pytest.mark.parametrize('wrong', [{'size': 5}, {'md5Hash': 'x'}])
def test_what_arrives_damaged_is_not_used(drawn, bucket, monkeypatch, wrong):
  name, real = 'drawn-train.array_record-00001-of-00003', bucket.info

  def info(self, path, **options):
    return {**real(self, path, **options), **(wrong if path.endswith(name) else {})}

  monkeypatch.setattr(bucket, 'info', info)
  with pytest.raises(
    errors.UserError, match=r'cannot copy .*00001-of-00003 .*differs from the object'
  ):
    source.open_source('drawn', 'train', ROOT).read([0])
  assert copied() == ['drawn-train.array_record-00000-of-00003']


def test_a_missing_file_is_named(drawn, bucket):
  del bucket.objects['some/tfds/drawn/1.0.0/drawn-train.array_record-00002-of-00003']
  with pytest.raises(errors.UserError, match=r'1.0.0 is incomplete: .*00002-of-00003 is missing'):
    source.open_source('drawn', 'train', ROOT).read([0])


def test_names_in_a_bucket_are_known(drawn, monkeypatch):
  assert catalog.names([files.path(ROOT)]) == ['drawn']
  with pytest.raises(errors.UserError, match=r'drawm \(did you mean "drawn"\?\) in gs://some/tfds'):
    source.open_source('drawm', 'train', ROOT)
  monkeypatch.setenv('TFDS_DATA_DIR', ROOT)
  assert len(source.open_source('drawn', 'train', '')) == 7
  assert dataset_writer.target(f'{ROOT}/more').searched


def test_what_is_not_in_the_bucket_is_prepared_on_a_disk(bucket):
  assert len(source.open_source('breast_cancer', 'train', ROOT)) == 456
  assert bucket.objects == {}
  assert (folders.cache_dir() / 'tfds' / 'breast_cancer').is_dir()


def test_the_cache_must_be_on_a_disk(monkeypatch):
  monkeypatch.setenv('ATELIER_CACHE', 'gs://some/cache')
  with pytest.raises(
    errors.UserError, match='ATELIER_CACHE=gs://some/cache must be a local folder'
  ):
    folders.cache_dir()
