"""The same calls on a disk and in a bucket, and a reader never finds half a file."""

import importlib
import io
import json
import os
import pathlib

import numpy as np
import PIL.Image
import pytest

import files
from data import folders
from engine import run
from errors import UserError


@pytest.fixture(params=['disk', 'bucket'])
def root(request, tmp_path, bucket):
  """A folder, of either kind."""
  return files.path(tmp_path / 'some' if request.param == 'disk' else 'gs://some/folder')


def test_what_is_written_is_read(root):
  files.write_text(root / 'deep' / 'a.txt', 'ä\n')
  files.write_json(root / 'b.json', {'x': [1, None]})
  files.write_bytes(root / 'c', b'\0\1')
  assert (root / 'deep' / 'a.txt').read_text() == 'ä\n'
  assert files.read_json(root / 'b.json') == {'x': [1, None]}
  assert (root / 'c').read_bytes() == b'\0\1' and not (root / 'd').exists()
  assert [path.name for path in files.entries(root)] == ['b.json', 'c', 'deep']
  assert files.entries(root / 'none') == []


def test_savers_that_seek_can_write(root):
  image = np.arange(12, dtype=np.uint8).reshape(3, 4)
  files.write_npz(root / 'a.npz', image=image)
  files.write(root / 'a.png', lambda file: PIL.Image.fromarray(image).save(file, format='PNG'))
  with np.load(io.BytesIO((root / 'a.npz').read_bytes())) as held:
    np.testing.assert_array_equal(held['image'], image)
  got = PIL.Image.open(io.BytesIO((root / 'a.png').read_bytes()))
  np.testing.assert_array_equal(np.asarray(got), image)


def test_a_write_that_fails_leaves_the_old_file_alone(root):
  files.write_text(root / 'a', 'old')

  def half(file):
    file.write(b'ne')
    file.flush()
    assert (root / 'a').read_text() == 'old'
    raise OSError('full')

  with pytest.raises(OSError, match='full'):
    files.write(root / 'a', half)
  assert (root / 'a').read_text() == 'old'
  assert [path.name for path in files.entries(root)] == ['a']


def test_a_reader_never_finds_half_a_file_on_a_disk(tmp_path):
  path = files.path(tmp_path / 'a')
  files.write_text(path, 'old')
  with open(path) as reader:
    files.write_text(path, 'new')
    assert reader.read() == 'old'  # the file that was opened is another one


def test_lines_are_appended(root):
  path = root / 'log'
  for part in (['a', 'b'], ['c']):
    lines = files.append_lines(path)
    for line in part:
      lines.add(line)
    lines.flush()
    assert path.read_text().split()[-1] == part[-1]
    lines.add('x')
    lines.close()
  assert path.read_text() == 'a\nb\nx\nc\nx\n'


def test_lines_on_a_disk_are_there_at_once(tmp_path):
  lines = files.append_lines(files.path(tmp_path / 'log'))
  lines.add('a')
  assert (tmp_path / 'log').read_text() == 'a\n'
  lines.close()


def test_lines_of_a_bucket_are_not_uploaded_one_by_one(bucket, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(files.time, 'monotonic', lambda: now[0])
  lines = files.append_lines(files.path('gs://some/log'))
  for second in range(25):
    now[0] = float(second)
    lines.add(str(second))
  assert len(bucket.uploads) == 2
  assert bucket.objects['some/log'][0].decode().split()[-1] == '20'
  lines.close()
  lines.close()
  assert len(bucket.uploads) == 3
  assert bucket.objects['some/log'][0].decode().split() == [str(second) for second in range(25)]


def test_a_stamp_changes_with_the_file(root):
  files.write_text(root / 'a', 'old')
  before = files.stamp(root / 'a')
  assert files.stamp(root / 'a') == before
  files.write_text(root / 'a', 'new')
  assert files.stamp(root / 'a') != before
  with pytest.raises(OSError):
    files.stamp(root / 'b')


def test_a_home_folder_is_expanded(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert os.fspath(files.path('~/runs')) == f'{tmp_path}/runs'
  assert os.fspath(files.path(pathlib.Path('~') / 'runs')) == f'{tmp_path}/runs'


def test_an_address_is_never_a_local_folder(bucket, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  place = files.path('gs://some/folder')
  assert not files.is_local(place) and files.is_local(files.path('some/folder'))
  assert os.fspath(place / 'a') == 'gs://some/folder/a'
  files.make_folder(place)
  files.write_text(place / 'a', '')
  assert list(tmp_path.iterdir()) == [] and [*bucket.objects] == ['some/folder/a']
  for text in ('s3://some/folder', 'gs:/some/folder', pathlib.Path('gs://some')):
    with pytest.raises(UserError, match='is no folder that can be opened; give a local one or gs:'):
      files.path(text)


def test_the_package_for_buckets_is_named_where_it_is_missing(monkeypatch):
  registry = importlib.import_module('fsspec.registry')
  missing = {'class': 'no_such_package.FileSystem', 'err': 'none'}
  monkeypatch.setitem(registry.known_implementations, 'gcs', missing)
  monkeypatch.delitem(registry._registry, 'gcs', raising=False)
  with pytest.raises(UserError, match=r'^gs://some is in a bucket.*: pip install gcsfs$'):
    files.path('gs://some')


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path):
  folder = tmp_path / 'a'
  for name in ('old', 'new'):
    with files.whole_folder(folder) as part:
      (part / name).write_text(name)
      assert [path.name for path in folder.glob('*')] == (['old'] if name == 'new' else [])
  assert [path.name for path in tmp_path.rglob('*')] == ['a', 'new']
  with pytest.raises(KeyboardInterrupt), files.whole_folder(folder) as part:
    (part / 'newer').write_text('')
    raise KeyboardInterrupt
  assert [path.name for path in tmp_path.rglob('*')] == ['a', 'new']


def test_a_folder_is_moved_over_another(root):
  for name in ('from/a', 'from/deep/b', 'to/here/c', 'stays'):
    files.write_text(root / name, name)
  files.move_folder(root / 'from', root / 'to' / 'here')
  assert (root / 'to' / 'here' / 'deep' / 'b').read_text() == 'from/deep/b'
  assert [path.name for path in files.entries(root / 'to' / 'here')] == ['a', 'deep']
  assert [path.name for path in files.entries(root)] == ['stays', 'to']
  files.move_folder(root / 'to', root / 'new' / 'place')
  assert (root / 'new' / 'place' / 'here' / 'a').read_text() == 'from/a'


def test_absolute(monkeypatch, tmp_path, bucket):
  monkeypatch.chdir(tmp_path)
  assert os.fspath(files.absolute('a')) == os.path.realpath(tmp_path / 'a')
  assert os.fspath(files.absolute('gs://some/a')) == 'gs://some/a'


def test_json_is_for_people_too(root):
  files.write_json(root / 'a.json', {'x': 1})
  assert (root / 'a.json').read_text() == json.dumps({'x': 1}, indent=2) + '\n'
  files.write_text(root / 'a.json', '{')
  with pytest.raises(ValueError):
    files.read_json(root / 'a.json')


def test_home_folders_are_expanded_and_unknown_ones_refused(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert str(files.path('~/runs/x')) == f'{tmp_path}/runs/x'
  assert str(files.path('~')) == str(files.absolute('~')) == str(tmp_path)
  files.write_text('~/some/a.txt', 'a')
  assert (tmp_path / 'some' / 'a.txt').read_text() == 'a'
  # Only where it begins a path.
  assert str(files.path('runs/~x')) == 'runs/~x'
  with pytest.raises(UserError, match='~nobody-here/x names no home folder'):
    files.path('~nobody-here/x')


def test_why_a_place_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  assert files.why_not_written(tmp_path / 'new' / 'run') == ''
  for place in (tmp_path / 'file', tmp_path / 'file' / 'below' / 'it'):
    assert files.why_not_written(place) == f'{tmp_path}/file is no folder; choose another place'
  for place in ('/dev/null', '/dev/null/run'):
    assert files.why_not_written(place) == '/dev/null is no folder; choose another place'
  assert files.why_not_written('gs://some/run') == ''

  disk = os.statvfs(tmp_path)

  class Disk:
    f_flag, f_blocks, f_bavail = disk.f_flag, disk.f_blocks, disk.f_bavail

  monkeypatch.setattr(os, 'statvfs', lambda place: Disk)
  Disk.f_flag |= os.ST_RDONLY
  assert 'can only be read; choose another' in files.why_not_written(tmp_path / 'run')
  Disk.f_flag, Disk.f_bavail = disk.f_flag, 0
  assert files.why_not_written(tmp_path / 'run').endswith('is full; free some space')
  Disk.f_blocks = 0  # as virtual file systems have
  assert files.why_not_written(tmp_path / 'run') == ''
  Disk.f_blocks, Disk.f_bavail = 1, 1
  monkeypatch.setattr(os, 'access', lambda place, mode: False)
  assert 'this user may not write in' in files.why_not_written(tmp_path / 'run')


def test_what_the_system_raised_is_told_in_words(tmp_path):
  for number, part in ((28, 'is full'), (30, 'can only be read'), (13, 'may not write')):
    said = files.why_not_written(tmp_path / 'a' / 'b', OSError(number, os.strerror(number)))
    assert part in said and str(tmp_path) in said
  assert 'Too many open files' in files.why_not_written(tmp_path, OSError(24, os.strerror(24)))


@pytest.mark.parametrize('place', ['~nobody77/x', 'file:///tmp/x', 'gs:/bucket/x'])
def test_a_path_that_cannot_be_is_told_with_its_option(place):
  for option, use in (
    ('--out', files.prepare_out),
    ('--workdir', run.check_place),
    ('--workdir', run.read_description),
    ('config.data.data_dir', folders.roots),
  ):
    with pytest.raises(UserError, match=f'^{option}={place} (names no home|is no folder)'):
      use(place)
