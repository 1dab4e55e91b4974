"""Stored examples that cannot be read are named with their record, or left out and counted."""

import glob
import io
import json

import numpy as np
import PIL.Image
import pytest

from data import folders, order, source
from data.selection import ClassSubset
from data.stream import Stream
from engine import summaries
from errors import UserError
from tests.data.tiny_sets import prepare

# Of 300 examples, stored in one file: a picture that is cut off and one that is none, and one whose
# record has a flipped bit.
CUT, NONE, FLIPPED = 7, 261, 100


def png(gray):
  file = io.BytesIO()
  noise = np.random.default_rng(gray).integers(0, 256, (16, 16), np.uint8)
  noise[0, 0] = gray
  PIL.Image.fromarray(noise).save(file, 'PNG')
  return file.getvalue()


def write(root, cut=(), none=(), flipped=None):
  import tensorflow_datasets as tfds

  features = {
    'image': tfds.features.Image(shape=(16, 16, 1)),
    'label': tfds.features.ClassLabel(num_classes=3),
  }
  pictures = [png(i % 256) for i in range(300)]
  stored = [
    picture[:-40] if i in cut else b'nothing' if i in none else picture
    for i, picture in enumerate(pictures)
  ]
  files = [io.BytesIO(content) for content in stored]
  examples = [{'image': file, 'label': i % 3} for i, file in enumerate(files)]
  prepare(root, 'some', features, {'train': examples})
  if flipped is not None:
    (path,) = glob.glob(f'{root}/some/1.0.0/*train*')
    raw = bytearray(open(path, 'rb').read())
    at = raw.find(pictures[flipped][40:80])
    assert at > 0
    raw[at] ^= 1
    open(path, 'wb').write(raw)
  return str(root)


FILE = 'some-train.array_record-00000-of-00001'


@pytest.mark.parametrize(
  'damage, message',
  [
    (
      {'cut': [CUT]},
      rf'image of example 7 of some train cannot be decoded .*, record 7 of {FILE};',
    ),
    ({'none': [NONE]}, rf'example 261 of some train cannot be decoded .*, record 261 of {FILE};'),
    ({'flipped': FLIPPED}, rf'is damaged \(record 100 of {FILE}, example 100 of some train: Corr'),
  ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path, damage, message):
  with pytest.raises(UserError, match=message) as told:
    source.open_source('some', 'train', write(tmp_path, **damage)).load()
  assert told.value.args[0].endswith('leave out what cannot be read with config.data.corrupt=skip')


def test_the_record_of_an_example_of_a_slice_is_named(tmp_path):
  with pytest.raises(UserError, match=rf'example 2 of some train\[5:\] .*, record 7 of {FILE}'):
    source.open_source('some', 'train[5:]', write(tmp_path, cut=[CUT])).load()


def test_they_are_left_out_and_counted(tmp_path, capsys):
  root = write(tmp_path, cut=[CUT], none=[NONE], flipped=FLIPPED)
  whole = source.open_source('some', 'train', write(tmp_path / 'whole'))
  some = source.open_source('some', 'train', root, corrupt='skip')
  kept = np.setdiff1d(np.arange(300), [CUT, NONE, FLIPPED])
  assert some.spec.n == len(some) == 297 and some.spec.left_out == 3
  assert some.spec.identity != whole.spec.identity
  for got in (some.load(), some.load(), some.read(range(297))):
    for name, values in whole.load().items():
      np.testing.assert_array_equal(got[name], values[kept])
  np.testing.assert_array_equal(some.column('label'), kept % 3)
  told = capsys.readouterr().err
  assert 'left out of some train: 3 of 300 examples, which cannot be read (listed in' in told
  assert f'record 7 of {FILE}' in told and f'record 100 of {FILE}' in told
  (listed,) = (folders.cache_dir() / 'unreadable').glob('*')
  (other,) = [name for name in json.loads(listed.read_text()) if int(name) not in (CUT, NONE)]
  assert other == str(FLIPPED)
  assert '297 examples' in (line := summaries.data(some.spec, False))
  assert line.endswith('(without 3 that cannot be read, config.data.corrupt=skip)')
  # Classes are looked for among those that can be read.
  assert len(ClassSubset(some, (1,))) == 98


def test_they_are_looked_for_once(tmp_path, capsys, monkeypatch):
  root = write(tmp_path, cut=[CUT])
  first = source.open_source('some', 'train', root, corrupt='skip')
  capsys.readouterr()
  monkeypatch.setattr('data.tfds.readable._find', None)
  again = source.open_source('some', 'train', root, corrupt='skip')
  assert again.spec == first.spec and not capsys.readouterr().err


def test_data_without_damage_is_the_same(tmp_path):
  root = write(tmp_path)
  assert (
    source.open_source('some', 'train', root).spec
    == source.open_source('some', 'train', root, corrupt='skip').spec
  )


def test_what_was_skipped_once_is_still_refused(tmp_path):
  root = write(tmp_path, flipped=FLIPPED)
  source.open_source('some', 'train', root, corrupt='skip')
  with pytest.raises(UserError, match='record 100 of'):
    source.open_source('some', 'train', root)


def test_a_record_file_that_is_missing_is_not_skipped(tmp_path):
  root = write(tmp_path)
  (path,) = tmp_path.rglob('*-train.array_record*')
  path.unlink()
  with pytest.raises(UserError, match=f'is damaged \\(there is no {FILE}'):
    source.open_source('some', 'train', root, corrupt='skip')


def test_a_split_with_nothing_that_can_be_read(tmp_path):
  root = write(tmp_path, none=range(300))
  with pytest.raises(UserError, match='some train has no example that can be read: the image of'):
    source.open_source('some', 'train', root, corrupt='skip')


@pytest.mark.parametrize('workers', [0, 2])
def test_a_stream_names_the_record_and_ends(tmp_path, mesh, workers):
  some = source.open_source('some', 'train', write(tmp_path, cut=[CUT]))
  made = Stream(some, 30, 9, mesh, workers, 0)
  with pytest.raises(UserError, match=f'image of example 7 of some train .*, record 7 of {FILE}'):
    for used in range(0, 300, 30):
      made.take(used, 1)
  made.close()


def test_a_stream_that_skips_is_the_same_from_any_position(tmp_path, mesh):
  some = source.open_source('some', 'train', write(tmp_path, cut=[CUT]), corrupt='skip')
  seen = []
  for used in range(0, 2 * 299, 23):  # each batch by a stream that was opened there
    made = Stream(some, 23, 9, mesh, 0, used)
    _, taken = made.take(used, 1)
    seen += np.asarray(taken['index'])[0].tolist()
    np.testing.assert_array_equal(np.asarray(taken['index'])[0], order.indices(9, used, 23, 299)[1])
    made.close()
  assert sorted(seen) == sorted([*range(299)] * 2)
