"""Folders of pictures: classes, splits, sizes, and what lies beside pictures."""

import dataclasses
import os

import numpy as np
import PIL.Image
import pytest

from data.own.options import Image, Table
from data.section import Data
from engine.build import call
from errors import UserError
from tests.data.own.files_of_ours import opened, write_classes, write_picture


def pixels_by_class(examples):
  """{class: the set of its images, as bytes}."""
  read = examples.read(range(len(examples)))
  found = {name: set() for name in examples.spec.class_names}
  for image, label in zip(read['image'], read['label'], strict=True):
    found[examples.spec.class_names[label]].add(image.tobytes())
  return found


def test_every_picture_is_read_once_with_its_class(tmp_path):
  root = tmp_path / 'a:b+c ~'
  write_classes(root)
  train, test = (opened(f'folder:{root}', split) for split in ('train', 'test'))
  assert train.spec.class_names == test.spec.class_names == ('cat', 'dog')
  assert train.spec.features['image'] == ((5, 6, 3), 'uint8')
  both = [pixels_by_class(each) for each in (train, test)]
  for name in ('cat', 'dog'):
    written = {np.asarray(PIL.Image.open(path)).tobytes() for path in (root / name).iterdir()}
    assert both[0][name] | both[1][name] == written and not both[0][name] & both[1][name]
  assert len(train) + len(test) == 60 and 1 <= len(test) <= 15


def test_slices_and_resident_arrays_are_those_of_any_data_set(tmp_path):
  write_classes(tmp_path / 'x')
  half, rest = (opened(f'folder:{tmp_path}/x', f'train[{part}]') for part in (':50%', '50%:'))
  whole = opened(f'folder:{tmp_path}/x')
  loaded = np.concatenate([half.load()['image'], rest.load()['image']])
  np.testing.assert_array_equal(whole.load()['image'], loaded)
  labels = whole.column('label')
  assert 0 < labels[: len(labels) // 2].mean() < 1  # classes are mixed


def test_the_test_split_stays_when_pictures_are_added_and_has_no_duplicates(tmp_path):
  root = tmp_path / 'x'
  write_classes(root)
  before = pixels_by_class(opened(f'folder:{root}', 'test'))
  write_classes(root, classes=('cat', 'dog', 'owl'), first=0, each=40)
  for path in [*(root / 'cat').iterdir()]:
    path.with_name(f'copy{path.name}').write_bytes(path.read_bytes())
  train, test = (opened(f'folder:{root}', split) for split in ('train', 'test'))
  after, training = pixels_by_class(test), pixels_by_class(train)
  assert before['cat'] <= after['cat'] and before['dog'] <= after['dog']
  assert not after['cat'] & training['cat'] and len(train) + len(test) == 160


def test_folders_of_splits(tmp_path):
  write_classes(tmp_path / 'train')
  write_classes(tmp_path / 'test', each=3, first=5000)
  write_classes(tmp_path / 'val', each=2, first=7000)
  sizes = {split: len(opened(f'folder:{tmp_path}', split)) for split in ('train', 'test', 'val')}
  assert sizes == {'train': 60, 'test': 6, 'val': 4}
  with pytest.raises(UserError, match=r'split=valid selects no examples of folder:.*"val"'):
    opened(f'folder:{tmp_path}', 'valid')


def test_a_training_folder_alone_gives_a_test_split(tmp_path):
  write_classes(tmp_path / 'Train')
  assert 1 <= len(opened(f'folder:{tmp_path}', 'test')) <= 15


def test_classes_may_be_called_like_splits(tmp_path):
  write_classes(tmp_path, classes=('train', 'car'))
  assert opened(f'folder:{tmp_path}').spec.class_names == ('car', 'train')


def test_numbers_as_classes_are_in_their_order(tmp_path):
  write_classes(tmp_path, classes=('10', '9', '1'), each=4)
  assert opened(f'folder:{tmp_path}').spec.class_names == ('1', '9', '10')


def test_a_flat_folder_has_no_classes_and_one_folder_one_class(tmp_path):
  write_classes(tmp_path, classes=('cat',))
  assert opened(f'folder:{tmp_path}').spec.num_classes == 1
  flat = opened(f'folder:{tmp_path}/cat').spec
  assert flat.num_classes == 0 and [*flat.features] == ['image']


def test_litter_links_and_deeper_folders(tmp_path, capsys):
  root = tmp_path / 'x'
  write_classes(root, each=5)
  write_picture(root / 'dog' / 'deep' / 'er' / 'd.png', 77)
  write_picture(tmp_path / 'elsewhere' / 'e.png', 78)
  (root / 'owl').symlink_to(tmp_path / 'elsewhere')
  (root / 'cat' / 'round').symlink_to(root / 'cat')
  (root / 'cat' / 'nowhere.png').symlink_to(root / 'absent.png')
  os.mkfifo(root / 'cat' / 'pipe.png')
  for name in ('.DS_Store', 'Thumbs.db', '__MACOSX/cat/1.png', '.hidden/1.png', 'cat/._1.png'):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'litter')
  (root / 'labels.csv').write_text('a,b')
  (root / 'fish').mkdir()
  train, test = (opened(f'folder:{root}', split) for split in ('train', 'test'))
  assert train.spec.class_names == ('cat', 'dog', 'owl') and len(train) + len(test) == 12
  printed = capsys.readouterr().err
  assert 'that are no pictures: 1 (labels.csv)' in printed
  assert 'without pictures are no classes: fish' in printed
  assert 'pictures: 1 (listed in' in printed and 'cat/nowhere.png cannot be opened' in printed


def test_unreadable_pictures_are_named_and_counted(tmp_path, capsys):
  write_classes(tmp_path, each=5)
  (tmp_path / 'cat' / 'text.png').write_text('no picture')
  whole = (tmp_path / 'cat' / '0.png').read_bytes()
  (tmp_path / 'dog' / 'half.png').write_bytes(whole[: len(whole) // 2])
  assert len(opened(f'folder:{tmp_path}')) + len(opened(f'folder:{tmp_path}', 'test')) == 10
  printed = capsys.readouterr().err
  assert 'pictures: 2 (listed in' in printed and 'dog/half.png cannot be decoded' in printed
  assert 'cat/text.png cannot be decoded (no format that Pillow knows)' in printed


def test_sizes_and_channels_that_differ_name_the_options(tmp_path):
  write_classes(tmp_path, each=4)
  write_picture(tmp_path / 'cat' / 'large.png', 1, size=(12, 9))
  write_picture(tmp_path / 'cat' / 'gray.png', 2, mode='L')
  with pytest.raises(UserError, match=r'differ in size .*5 × 6 \(9\), 9 × 12 \(1\).*image\.size'):
    opened(f'folder:{tmp_path}')
  with pytest.raises(UserError, match=r'gray \(1\), colour \(9\); .*image\.channels=3'):
    opened(f'folder:{tmp_path}', image=dict(size=(8,)))
  image = dict(size=(8,), channels=3, resize='pad')
  assert opened(f'folder:{tmp_path}', image=image).spec.features['image'] == ((8, 8, 3), 'uint8')
  image = dict(size=(8, 4), channels=1)
  assert opened(f'folder:{tmp_path}', image=image).spec.features['image'] == ((8, 4, 1), 'uint8')


def test_a_turned_photo_has_the_size_that_is_seen(tmp_path):
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  for i in range(4):
    write_picture(tmp_path / f'{i}.png', i, size=(5, 6))
    PIL.Image.new('RGB', (6, 5), (i, 0, 0)).save(tmp_path / f'{i}.jpg', exif=exif)
  assert opened(f'folder:{tmp_path}').spec.features['image'] == ((6, 5, 3), 'uint8')


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ([], 'has no pictures; name a folder'),
    (['a.txt'], 'has no pictures, only a.txt; name'),
    (['a.png', 'cat/b.png'], r'that lie in no class folder \(1: a.png\)'),
    (['train/a/1.png', 'test/a/2.png', 'more/a/3.png'], r'of splits beside other pictures \(more'),
    (['train/a/1.png', 'test/a/2.png', 'test/b/3.png'], 'class "b" has pictures in test and none'),
    (['train/a/1.png', 'test/2.png'], 'lie in no class folder'),
    (['a\nb/1.png', 'c/2.png'], 'holds line ends'),
  ],
)
def test_folders_that_are_refused(tmp_path, names, message):
  for number, name in enumerate(names):
    write_picture(tmp_path / name, number) if name.endswith('.png') else (
      tmp_path / name
    ).write_text('x')
  with pytest.raises(UserError, match=message):
    opened(f'folder:{tmp_path}')


def test_a_file_and_nothing_at_all_are_refused(tmp_path):
  write_picture(tmp_path / 'a.png', 0)
  with pytest.raises(UserError, match='is a file, and folder: reads the pictures in a folder'):
    opened(f'folder:{tmp_path}/a.png')
  with pytest.raises(UserError, match=r'absent is not there, and the cache has no copy'):
    opened(f'folder:{tmp_path}/absent')
  with pytest.raises(UserError, match='must be a local path'):
    opened('folder:gs://bucket/pictures')


def test_options_that_have_no_effect_are_refused():
  fields = dict.fromkeys(Data.__dataclass_fields__, '')
  data = Data(**{**fields, 'name': 'mnist5k', 'columns': (), 'image': None, 'table': None,
                 'jsonl': None})  # fmt: skip
  data.check_own()
  for section, value in (('image', Image(size=(8,))), ('table', Table(target='y'))):
    with pytest.raises(UserError, match=rf'config\.data\.{section}\..* has no effect on mnist5k'):
      dataclasses.replace(data, **{section: value}).check_own()
  dataclasses.replace(data, name='mnist5k+folder:x', image=Image(size=(8,))).check_own()
  with pytest.raises(ValueError, match='resize=pad has no effect without size'):
    Image(resize='pad')
  moved = dataclasses.replace(data, name='folder:x', test_name='npz:y', data_dir='/prepared')
  with pytest.raises(UserError, match=r'data\.data_dir=/prepared has no effect on folder:x'):
    moved.check_data_dir()
  dataclasses.replace(moved, test_name='mnist5k').check_data_dir()
  dataclasses.replace(moved, data_dir='').check_data_dir()


def test_a_size_that_is_a_slip_is_refused():
  with pytest.raises(UserError, match='size=100000: 100000 must be at least 1 and at most 8192'):
    call(Image, dict(size=100_000), 'config.data.image')
