"""Our own images become a data set that is found by its name, whole or not at all."""

import json
import resource

import numpy as np
import pytest

from data import folders
from data.source import open_source
from data.tfds import dataset_writer
from errors import UserError

NAMES = ('zero', 'one', 'two')


def images_of(number, shape=(6, 5, 3)):
  return np.random.default_rng(0).integers(0, 256, (number, *shape), np.uint8)


def chunks_of(images, size, labels=None):
  for start in range(0, len(images), size):
    part = slice(start, start + size)
    yield {'image': images[part], **({} if labels is None else {'label': labels[part]})}


def write(out, images, labels=None, chunks=None):
  return dataset_writer.write(
    dataset_writer.target(str(out)),
    chunks_of(images, 4, labels) if chunks is None else chunks,
    len(images),
    images.shape[1:],
    () if labels is None else NAMES,
    'Drawn by nobody.',
  )


@pytest.mark.parametrize('per_file', [4, 7, 100])
def test_what_is_written_is_read_in_its_order(per_file, monkeypatch):
  monkeypatch.setattr(dataset_writer, '_IMAGES_PER_FILE', per_file)
  images, labels = images_of(23), np.arange(23) % 3
  folder = write('drawn', images, labels)
  assert folder == folders.cache_dir() / 'tfds' / 'drawn' / '1.0.0'
  assert len(list(folder.glob('*.array_record*'))) == -(-23 // per_file)
  source = open_source('drawn', 'train', '')
  spec = source.spec
  assert (spec.n, spec.num_classes, spec.class_names) == (23, 3, NAMES)
  assert spec.features == {'image': ((6, 5, 3), 'uint8'), 'label': ((), 'int32')}
  read = source.read(range(23))
  np.testing.assert_array_equal(read['image'], images)
  np.testing.assert_array_equal(read['label'], labels)
  info = json.loads((folder / 'dataset_info.json').read_text())
  assert info['description'] == 'Drawn by nobody.'
  assert [split['name'] for split in info['splits']] == ['train']


def test_images_without_labels_in_a_folder_of_the_user_s(tmp_path):
  images = images_of(5, (4, 4, 1))
  assert write(tmp_path / 'mine' / 'drawn', images) == tmp_path / 'mine' / 'drawn' / '1.0.0'
  source = open_source('drawn', 'train', str(tmp_path / 'mine'))
  assert source.spec.features == {'image': ((4, 4, 1), 'uint8')} and not source.spec.num_classes
  np.testing.assert_array_equal(source.read(range(5))['image'], images)


def test_other_images_have_another_identity(tmp_path):
  flat, noisy = np.zeros((9, 8, 8, 1), np.uint8), images_of(9, (8, 8, 1))
  found = {}
  for folder, images in [('a', flat), ('b', noisy), ('c', flat)]:
    write(tmp_path / folder / 'drawn', images)
    found[folder] = open_source('drawn', 'train', str(tmp_path / folder)).spec.identity
  assert found['a'] == found['c'] != found['b']


def test_images_are_taken_as_they_are_written(monkeypatch):
  monkeypatch.setattr(dataset_writer, '_IMAGES_PER_FILE', 4)
  images, files = images_of(12), []
  root = folders.cache_dir() / 'tfds'

  def watched():
    for chunk in chunks_of(images, 4):
      files.append(len(list(root.rglob('*.array_record*'))))
      yield chunk

  write('drawn', images, chunks=watched())
  assert files == [1, 2, 3]  # the first image is asked for with its file open


def test_what_was_stopped_leaves_nothing_and_can_be_done_again():
  images = images_of(8)

  def stopped():
    yield {'image': images[:4]}
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write('drawn', images, chunks=stopped())
  root = folders.cache_dir() / 'tfds'
  assert [path.name for path in root.iterdir()] == ['.preparing-drawn.lock']
  write('drawn', images)
  assert len(open_source('drawn', 'train', '')) == 8


def test_a_name_that_is_there_is_not_written_over(tmp_path, monkeypatch):
  first = tmp_path / 'first'
  monkeypatch.setenv('TFDS_DATA_DIR', str(first))
  late = dataset_writer.target('drawn')
  write(first / 'drawn', images_of(3))
  for out in ('drawn', first / 'drawn'):  # the first would never be found
    with pytest.raises(UserError, match=r'first/drawn exists already.*delete that folder'):
      dataset_writer.target(str(out))
  assert dataset_writer.target(f'{tmp_path}/second/drawn').root == tmp_path / 'second'
  # One that came while this was on its way.
  (late.root / 'drawn').mkdir(parents=True)
  with pytest.raises(UserError, match='exists already'):
    dataset_writer.write(late, iter([]), 1, (4, 4, 1), (), '')


@pytest.mark.parametrize(
  'out, part',
  [
    ('mnist5k', 'data/tfds/builders/mnist5k.py'),
    ('folder/fashion_mnist', 'data/tfds/builders/fashion_mnist.py'),
    ('3d', '"3d" of --out=3d cannot name'),
    ('two-words', 'cannot name'),
    ('mnist5k+drawn', 'cannot name'),
    ('_hidden', 'cannot name'),
    ('/', 'cannot name'),
  ],
)
def test_names_that_cannot_be(out, part):
  with pytest.raises(UserError, match=part.replace('+', r'\+')):
    dataset_writer.target(out)


def test_where_a_name_leads(tmp_path, monkeypatch):
  cache = folders.cache_dir() / 'tfds'
  assert (
    dataset_writer.target('drawn') == ('drawn', cache) and dataset_writer.target('drawn').searched
  )
  assert dataset_writer.target('drawn/') == ('drawn', cache)
  monkeypatch.chdir(tmp_path)
  here = dataset_writer.target('./drawn')
  assert here.root.resolve() == tmp_path and not here.searched
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  assert dataset_writer.target(f'{tmp_path}/drawn').searched


def test_a_full_disk_is_said_in_words(tmp_path):
  images = images_of(2000, (16, 16, 3))
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
  try:
    with pytest.raises(
      UserError, match=r'cannot write .*small/drawn \(File too large\); make room'
    ):
      write(tmp_path / 'small' / 'drawn', images)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert [path.name for path in (tmp_path / 'small').iterdir()] == ['.preparing-drawn.lock']


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'cannot write data set .*file/drawn'):
    write(tmp_path / 'file' / 'drawn', images_of(3))


def test_an_error_of_the_images_keeps_its_name():
  def broken():
    raise RuntimeError('out of memory')
    yield

  with pytest.raises(RuntimeError, match='out of memory'):
    write('drawn', images_of(3), chunks=broken())
