"""Decoded once into mapped arrays: the same examples, gone on with after a kill."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import defaults
from data import column_files, decoded, folders, source
from data.decoded import Decoded, decode_once
from data.section import Data, open_training
from data.selection import ClassSubset, Relabelled
from data.text import options as text_options
from errors import UserError


@pytest.fixture
def part(prepared_root):
  return source.open_source('mnist5k', 'train[:700]', str(prepared_root))


def count_reads(monkeypatch, examples):
  """Counts the examples that are decoded from now on."""
  read, counted = examples.read, []
  monkeypatch.setattr(examples, 'read', lambda index: counted.extend(index) or read(index))
  return counted


def files_of_cache():
  return sorted(path for path in (folders.cache_dir() / 'decoded').glob('*') if path.is_dir())


def assert_reads_as(got, wanted):
  index = [3, 699, 0, 3]
  for name, values in wanted.read(index).items():
    mine = got.read(index)[name]
    assert type(mine) is np.ndarray and mine.dtype == values.dtype
    np.testing.assert_array_equal(mine, values)
  assert got.spec == wanted.spec and got.stamp == wanted.stamp


def test_a_split_is_decoded_once_and_reads_the_same(part, monkeypatch):
  counted = count_reads(monkeypatch, part)
  first = decode_once(part, 1)
  assert isinstance(first, Decoded) and sorted(counted) == [*range(700)]
  del counted[:]
  again = decode_once(part, 1)
  assert not counted
  monkeypatch.undo()
  assert_reads_as(first, part)
  assert_reads_as(again, part)
  for name, values in part.load().items():
    np.testing.assert_array_equal(again.load()[name], values)


def test_a_worker_process_is_sent_the_path_and_not_the_arrays(part):
  made = decode_once(part, 1)
  sent = pickle.dumps(made)
  assert len(sent) < 2000
  assert_reads_as(pickle.loads(sent), part)


def test_what_exceeds_the_budget_and_text_stay_as_they_are(part, names):
  assert decode_once(part, 0) is part
  assert part.nbytes < 2**20 and isinstance(decode_once(part, 1), Decoded)
  text = text_options.open_text(
    names(), text_options.Text('byte', 0, (), 'windows', 32, True, 0, False), '', True
  )
  assert decode_once(text, 10**6) is text
  documents = names()
  assert decode_once(documents, 10**6) is documents


def test_folds_share_the_arrays(prepared_root):
  given = defaults.defaults().data.to_dict()
  given |= dict(name='mnist5k', split='train[:700]', data_dir=str(prepared_root), folds=3)
  given |= dict(image=None, table=None, jsonl=None, text=None)
  for fold in range(3):
    data = Data(**{**given, 'fold': fold})
    got, wanted = open_training(data, decoded=True), open_training(data)
    assert got.spec == wanted.spec
    index = [0, 7, len(got) - 1]
    np.testing.assert_array_equal(got.read(index)['image'], wanted.read(index)['image'])
  assert len(files_of_cache()) == 1


def test_examples_that_are_others_have_arrays_of_their_own(part, prepared_root):
  """Two that number the classes in a circle, one each way round, have the same identity."""
  kept = ClassSubset(part, (1, 2, 0, *range(3, 10)))
  circle = [*part.spec.class_names]
  circle[:3] = circle[2], circle[0], circle[1]
  turned = Relabelled(part, circle)
  other = source.open_source('mnist5k', 'train[700:1400]', str(prepared_root))
  for each in (part, kept, turned, other):
    assert_reads_as(decode_once(each, 1), each)
  assert len(files_of_cache()) == 4


@pytest.mark.parametrize('damage', ['flip', 'cut', 'remove'])
def test_damage_is_mended(part, damage):
  decode_once(part, 1)
  (folder,) = files_of_cache()
  image = folder / 'image.npy'
  if damage == 'flip':
    raw = bytearray(image.read_bytes())
    raw[-5] ^= 1
    image.write_bytes(raw)
  elif damage == 'cut':
    os.truncate(image, 4000)
  else:
    image.unlink()
  assert_reads_as(decode_once(part, 1), part)


CODE = """
import sys, time
from data import column_files, decoded, source
decoded._BLOCK, column_files._NOTE_EVERY = 50, 0.0
part = source.open_source('mnist5k', 'train[:700]', sys.argv[1])
read = part.read
def slow(index):
  time.sleep(0.2)
  return read(index)
part.read = slow
decoded.decode_once(part, 1)
"""


def test_a_killed_process_is_gone_on_from(part, prepared_root, monkeypatch):
  writer = subprocess.Popen([sys.executable, '-c', CODE, str(prepared_root)], env={**os.environ})
  deadline = time.monotonic() + 120
  notes = []
  while not notes and time.monotonic() < deadline:
    time.sleep(0.02)
    notes = [*(folders.cache_dir() / 'decoded').glob('*.partial/done.json')]
  writer.send_signal(signal.SIGKILL)
  writer.wait()
  assert notes and not (notes[0].parent.with_suffix('')).exists()
  with open(notes[0].parent / 'image.npy', 'ab') as file:
    file.write(b'half a block')
  counted = count_reads(monkeypatch, part)
  made = decode_once(part, 1)
  monkeypatch.undo()
  # It went on behind what was noted, and without a gap.
  assert 0 < min(counted) and min(counted) % 50 == 0
  assert counted == [*range(min(counted), 700)]
  assert_reads_as(made, part)
  np.testing.assert_array_equal(made.load()['image'], part.load()['image'])
  assert not [*(folders.cache_dir() / 'decoded').glob('*.partial')]


@pytest.mark.parametrize('note', ['{', '[]', '{"image": 9, "label": 900}', '{"image": 5}'])
def test_a_damaged_note_starts_again(part, note, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(decoded, '_BLOCK', 100)
    patch.setattr(column_files, '_NOTE_EVERY', 0.0)
    patch.setattr(part, 'read', _interrupted(part.read, 4))
    with pytest.raises(KeyboardInterrupt):
      decode_once(part, 1)
  (part_folder,) = files_of_cache()
  (part_folder / 'done.json').write_text(note)
  counted = count_reads(monkeypatch, part)
  made = decode_once(part, 1)
  monkeypatch.undo()
  assert counted[0] == 0
  assert_reads_as(made, part)


def _interrupted(read, calls):
  left = [calls]

  def once(index):
    left[0] -= 1
    if not left[0]:
      raise KeyboardInterrupt
    return read(index)

  return once


def test_a_disk_with_too_little_room_is_told_before_anything_is_read(part, monkeypatch, capsys):
  usage = shutil.disk_usage('/')
  monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage._replace(free=100_000))
  counted = count_reads(monkeypatch, part)
  assert decode_once(part, 1) is part
  assert not counted and not files_of_cache()
  (line,) = capsys.readouterr().err.splitlines()
  assert 'decoded anew in every epoch' in line and '1 MiB are needed in' in line
  assert 'its disk has 0 MiB' in line and 'config.data.decoded_mb=0' in line


def test_a_disk_that_fills_up_meanwhile_is_told_and_cleared(part, monkeypatch, capsys):
  append = column_files._Column.append

  def full(self, values):
    if self.rows >= 300:
      raise OSError(errno.ENOSPC, 'No space left on device')
    append(self, values)

  monkeypatch.setattr(decoded, '_BLOCK', 100)
  monkeypatch.setattr(column_files._Column, 'append', full)
  assert decode_once(part, 1) is part
  assert not files_of_cache()
  (line,) = capsys.readouterr().err.splitlines()
  assert 'cannot be kept: the disk of' in line and 'is full; free some space' in line


def test_a_cache_that_cannot_be_written_is_told(part, tmp_path, monkeypatch, capsys):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'file'))
  assert decode_once(part, 1) is part
  assert 'cannot be kept' in capsys.readouterr().err


def test_an_example_that_cannot_be_read_is_an_error_and_leaves_nothing(part, monkeypatch):
  def refuse(index):
    raise UserError('the image of example 7 cannot be decoded')

  monkeypatch.setattr(part, 'read', refuse)
  with pytest.raises(UserError, match='example 7'):
    decode_once(part, 1)
  assert not files_of_cache()


def test_two_processes_decode_once(prepared_root):
  running = [
    subprocess.Popen(
      [sys.executable, '-c', CODE, str(prepared_root)], stderr=subprocess.PIPE, text=True
    )
    for _ in range(2)
  ]
  said = [process.communicate(timeout=120)[1] for process in running]
  assert [process.returncode for process in running] == [0, 0], said
  (folder,) = files_of_cache()
  assert folder.suffix == ''
