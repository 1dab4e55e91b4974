"""One writer for a work folder, on a disk and in a bucket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import files
from engine import lock, run
from errors import UserError

PLACE = 'gs://some/run'
LOCK = 'some/run/.lock'


def put(bucket, age, token='another'):
  """Leaves the lock of another process that was renewed `age` seconds ago."""
  held = {'host': 'far', 'process': 7, 'time': time.time() - age, 'token': token}
  files.write_text(f'{PLACE}/.lock', json.dumps(held))
  return held


def held(bucket):
  return json.loads(bucket.objects[LOCK][0])


HOLD = """
import sys, time
from engine import run
with run.only_writer(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def test_a_killed_process_does_not_lock_a_folder_on_a_disk(tmp_path):
  command = [sys.executable, '-c', HOLD, str(tmp_path / 'run')]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  with pytest.raises(UserError, match='another process is training in'):
    with run.only_writer(str(tmp_path / 'run')):
      pass
  process.kill()
  process.wait()
  with run.only_writer(str(tmp_path / 'run')):
    pass


def test_a_lock_in_a_bucket_names_its_holder_and_goes_with_it(bucket):
  before = time.time()
  with run.only_writer(PLACE):
    found = held(bucket)
    assert (found['host'], found['process']) == (socket.gethostname(), os.getpid())
    assert before <= found['time'] <= time.time()
    with pytest.raises(UserError, match=rf'process {os.getpid()} on .* is training in {PLACE} '):
      with run.only_writer(PLACE):
        pass
    assert held(bucket) == found
  assert bucket.objects == {}


def test_it_goes_after_an_error_too(bucket):
  with pytest.raises(KeyboardInterrupt), run.only_writer(PLACE):
    raise KeyboardInterrupt
  assert bucket.objects == {}


@pytest.mark.parametrize(('age', 'counts'), [(0, True), (295, True), (305, False)])
def test_it_counts_for_five_minutes(bucket, monkeypatch, age, counts):
  monkeypatch.setattr(lock, '_SETTLES_IN', 0.01)
  put(bucket, age)
  if counts:
    with pytest.raises(UserError, match=r'process 7 on far is training .*counts for 300 s'):
      with run.only_writer(PLACE):
        pass
    assert held(bucket)['host'] == 'far'
  else:
    with run.only_writer(PLACE):
      assert held(bucket)['process'] == os.getpid()


@pytest.mark.parametrize('content', ['', '{', '[]', '{"time": 1}'])
def test_what_is_no_lock_does_not_lock(bucket, monkeypatch, content):
  files.write_text(f'{PLACE}/.lock', content)
  monkeypatch.setattr(lock, '_SETTLES_IN', 0.01)
  with run.only_writer(PLACE):
    assert held(bucket)['process'] == os.getpid()


def test_of_two_that_create_it_at_once_one_is_refused(bucket, monkeypatch):
  """The other one comes between the look and the creation."""
  real = lock._Object._read
  looks = []

  def read(self):
    found = real(self)
    if not looks:
      put(bucket, 0)
    looks.append(found)
    return found

  monkeypatch.setattr(lock._Object, '_read', read)
  with pytest.raises(UserError, match='process 7 on far'):
    with run.only_writer(PLACE):
      pass
  assert looks[0] is None and held(bucket)['host'] == 'far'


def test_of_two_that_take_over_an_old_one_one_is_refused(bucket, monkeypatch):
  put(bucket, 1000)
  monkeypatch.setattr(lock.time, 'sleep', lambda seconds: put(bucket, 0))
  with pytest.raises(UserError, match='process 7 on far'):
    with run.only_writer(PLACE):
      pass
  assert held(bucket)['host'] == 'far'


def wait_for(condition):
  deadline = time.monotonic() + 5
  while not condition():
    assert time.monotonic() < deadline, 'it did not come'
    time.sleep(0.005)


def test_it_is_renewed_even_after_a_failure(bucket, monkeypatch, capsys):
  monkeypatch.setattr(lock, 'RENEWED_EVERY', 0.01)
  failures = [OSError('unreachable')]
  real = lock._Object.renew

  def renew(self):
    if failures:
      raise failures.pop()
    return real(self)

  monkeypatch.setattr(lock._Object, 'renew', renew)
  with run.only_writer(PLACE):
    first = held(bucket)['time']
    wait_for(lambda: held(bucket)['time'] > first)
  assert bucket.objects == {}
  assert f'the lock of {PLACE} could not be renewed (unreachable)' in capsys.readouterr().err


def test_one_that_was_taken_over_ends_the_process_and_stays(bucket, monkeypatch, capsys):
  monkeypatch.setattr(lock, 'RENEWED_EVERY', 0.01)
  signals = []
  before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
  try:
    with run.only_writer(PLACE):
      put(bucket, 0)
      wait_for(lambda: signals)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert signals == [signal.SIGTERM] and held(bucket)['host'] == 'far'
  assert f'has taken over {PLACE}' in capsys.readouterr().err


LOOK = """
import sys
import files
from engine import lock
print('looking', flush=True)
while True:
  lock.is_held(files.path(sys.argv[1]) / '.lock')
"""


def test_a_listing_keeps_no_training_from_starting(tmp_path):
  """It holds the lock for the instant in which it looks at it."""
  with run.only_writer(str(tmp_path)):
    pass
  process = subprocess.Popen(
    [sys.executable, '-c', LOOK, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  try:
    assert process.stdout.readline() == 'looking\n'
    for _ in range(100):
      with run.only_writer(str(tmp_path)):
        pass
  finally:
    process.kill()
    process.wait()
