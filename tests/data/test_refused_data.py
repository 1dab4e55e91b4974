"""Data that cannot be used, and options of data without effect, are refused in one sentence."""

import json
import re
import shutil

import numpy as np
import pytest

from data import section, source
from data.transforms import OFF
from errors import UserError
from tests.data.tiny_sets import prepare


def options(root, **given):
  return section.Data(
    **{
      **dict(
        name='mnist5k', split='train[:60]', test_name='', test_split='test', classes=(),
        columns=(), folds=0, fold=0, batch_size=1, data_dir=str(root), resident_mb=1, workers=0,
        text=None, augment=OFF,
      ),
      **given,
    }
  )  # fmt: skip


def test_a_folder_of_data_that_is_none(tmp_path):
  (tmp_path / 'file').write_text('')
  for data_dir in ('nowhere', 'file'):
    message = rf'config\.data\.data_dir=.*/{data_dir} is no folder; create it'
    with pytest.raises(UserError, match=message):
      section.open_training(options(tmp_path / data_dir))
  assert not (tmp_path / 'nowhere').exists()


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('mnist5k:9.9.9', r'makes version 1\.0\.0; remove ":9\.9\.9" from the name'),
    ('mnist5k/large', r'makes no configuration "large"; it makes only "mnist5k"'),
    ('names/x:1.0.0', r'makes no configuration "x"; it makes only "names"'),
  ],
)
def test_versions_and_configurations_that_no_builder_makes(tmp_path, name, message):
  with pytest.raises(UserError, match=rf'data set {name} cannot be prepared: .*{message}'):
    source.open_source(name, 'train', str(tmp_path))
  assert not list(tmp_path.glob('[!.]*/*'))


def copy_of(prepared_root, root):
  shutil.copytree(prepared_root / 'mnist5k', root / 'mnist5k')
  return root / 'mnist5k' / '1.0.0'


@pytest.mark.parametrize('lacking', ['dataset_info.json', 'features.json'])
def test_a_data_set_without_its_description(prepared_root, tmp_path, lacking):
  folder = copy_of(prepared_root, tmp_path)
  (folder / lacking).unlink()
  with pytest.raises(UserError, match=rf'1\.0\.0 is damaged \(there is no {lacking}\); delete it'):
    source.open_source('mnist5k', 'train', str(tmp_path))
  shutil.rmtree(folder)
  folder.mkdir()  # an empty folder is none
  assert source.open_source('mnist5k', 'train', str(tmp_path)).spec.n == 4000


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('content', ['', 'null', '[]', '{"splits": 3}', '{"featuresDict": []}'])
def test_a_description_of_another_form(prepared_root, tmp_path, name, content):
  folder = copy_of(prepared_root, tmp_path)
  (folder / name).write_text(content)
  with pytest.raises(UserError, match=r'damaged|no feature "image"'):
    source.open_source('mnist5k', 'train', str(tmp_path))
  (folder / name).unlink()
  (folder / name).mkdir()
  with pytest.raises(UserError, match=r'damaged \(Is a directory\)'):
    source.open_source('mnist5k', 'train', str(tmp_path))


def test_splits_of_another_form(prepared_root, tmp_path):
  folder = copy_of(prepared_root, tmp_path)
  good = json.loads((folder / 'dataset_info.json').read_text())
  for splits in ({}, [[]], [{'name': 'train', 'shardLengths': ['many']}]):
    (folder / 'dataset_info.json').write_text(json.dumps({**good, 'splits': splits}))
    with pytest.raises(UserError, match=r'damaged|selects no examples'):
      source.open_source('mnist5k', 'train', str(tmp_path))


@pytest.mark.parametrize(
  ('feature', 'value', 'shown'),
  [
    ('group', 2**31, '2147483648, which does not fit in int32'),
    ('group', -(2**31) - 1, '-2147483649, which does not fit in int32'),
    ('label', 2**40, '1099511627776, which does not fit in int32'),
    ('target', 1e300, '1e[+]300, which does not fit in float32'),
    ('inputs', 1e39, '1e[+]39, which does not fit in float32'),
  ],
)
def test_numbers_of_more_than_32_bits(tmp_path, feature, value, shown):
  import tensorflow_datasets as tfds

  features = {
    'inputs': tfds.features.Tensor(shape=(2,), dtype=np.float64, encoding='bytes'),
    'target': tfds.features.Tensor(shape=(), dtype=np.float64, encoding='bytes'),
    'label': tfds.features.Scalar(np.int64),
    'group': tfds.features.Scalar(np.int64),
  }
  good = {
    'inputs': np.array([0.0, 3e38]), 'target': np.float64(1), 'label': 2**31 - 1,
    'group': -(2**31),
  }  # fmt: skip
  bad = {'inputs': np.array([0.0, value])}.get(feature, value)
  if feature == 'target':
    bad = np.float64(value)
  prepare(tmp_path, 'wide', features, {'train': [good, good, {**good, feature: bad}]})
  got = source.open_source('wide', 'train', str(tmp_path), columns=('group',))
  fine = got.read([0, 1])
  assert fine['label'].tolist() == [2**31 - 1] * 2 and fine['group'].tolist() == [-(2**31)] * 2
  assert fine['inputs'].dtype == np.float32 and fine['inputs'][0, 1] == np.float32(3e38)
  with pytest.raises(UserError, match=f'the {feature} of example 2 of wide train is {shown}'):
    got.read([1, 2])
  with pytest.raises(UserError, match=f'the {feature} of example 2 of wide train'):
    got.load()


@pytest.mark.parametrize(
  ('feature', 'value', 'column', 'shown'),
  [
    ('inputs', np.nan, 'column 1 of the inputs', 'nan'),
    ('inputs', -np.inf, 'column 1 of the inputs', '-inf'),
    ('target', np.nan, 'the target', 'nan'),
    ('target', np.inf, 'the target', 'inf'),
  ],
)
def test_numbers_that_are_not_finite(tmp_path, feature, value, column, shown):
  import tensorflow_datasets as tfds

  features = {
    'inputs': tfds.features.Tensor(shape=(2,), dtype=np.float32, encoding='bytes'),
    'target': tfds.features.Scalar(np.float32),
  }
  good = {'inputs': np.zeros(2, np.float32), 'target': np.float32(1)}
  bad = np.array([0, value], np.float32) if feature == 'inputs' else np.float32(value)
  prepare(tmp_path, 'gaps', features, {'train': [good, {**good, feature: bad}] * 2})
  got = source.open_source('gaps', 'train', str(tmp_path))
  assert got.read([0, 2])['inputs'].tolist() == [[0, 0]] * 2
  message = f'{column} of gaps train is {shown} in example 1, and not finite in '
  with pytest.raises(UserError, match=f'^{message}2 of 4 examples; prepare'):
    got.load()
  with pytest.raises(UserError, match=f'^{message}1 of 2 examples; prepare'):
    got.read([0, 1])


@pytest.mark.parametrize(
  ('content', 'reason'),
  [(b'\xff\xfe', "label.labels.txt: 'utf-8'"), (b'0\n1\n', 'names 2 classes of 10')],
)
def test_names_of_classes_that_are_damaged(prepared_root, tmp_path, content, reason):
  folder = copy_of(prepared_root, tmp_path)
  (folder / 'label.labels.txt').write_bytes(content)
  with pytest.raises(UserError, match=rf'1\.0\.0 is damaged \(.*{reason}'):
    section.open_training(options(tmp_path))


@pytest.mark.parametrize('kind', ['folder', 'link to itself', 'empty'])
def test_a_record_file_that_is_none(prepared_root, tmp_path, kind):
  folder = copy_of(prepared_root, tmp_path)
  path = next(folder.glob('*-train.array_record-00000*'))
  path.unlink()
  if kind == 'folder':
    path.mkdir()
  elif kind == 'empty':
    path.touch()
  else:
    path.symlink_to(path.name)
  with pytest.raises(UserError, match=r'1\.0\.0 is damaged \('):
    section.open_training(options(tmp_path))


@pytest.mark.parametrize('described', ['39', '4000'])
def test_record_files_with_another_number_of_examples(prepared_root, tmp_path, described):
  folder = copy_of(prepared_root, tmp_path)
  info = json.loads((folder / 'dataset_info.json').read_text())
  test = next(split for split in info['splits'] if split['name'] == 'test')
  test['shardLengths'] = [described]
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  with pytest.raises(UserError, match=rf'holds 1000 examples, and {described} are described'):
    source.open_source('mnist5k', 'test', str(tmp_path))


def test_a_folder_without_versions_is_no_data_set(tmp_path):
  for name in ('one', 'two'):
    (tmp_path / 'downloads' / name / 'extracted').mkdir(parents=True)
  for name in ('downloads', 'downloads/one'):
    with pytest.raises(UserError, match=f'^config.data.name={name}: there is no data set {name}'):
      source.open_source(name, 'train', str(tmp_path))


@pytest.mark.parametrize('name', ['', 'mnist5k+', '+mnist5k'])
def test_an_empty_name_is_told_with_all_of_them(tmp_path, name):
  with pytest.raises(UserError, match=rf'^config\.data\.name={re.escape(name)} has an empty name'):
    source.open_source(name, 'train', str(tmp_path))
