"""A disk that is full, or can only be read, while a run trains: it goes on, and loses nothing."""

import errno
import subprocess
import time

import pytest

from engine import loop
from tests import runs
from tests.test_transfer import config_of

# Bytes of the small disk: some checkpoints of the small run, its log and its events.
SIZE = 4 * 2**20
STEPS = 18


def config(**changes):
  found = config_of(
    train__steps=STEPS, checkpoint__every=3, checkpoint__keep=2, train__log_every=1, **changes
  )
  found.train.dispatch = 1
  return found


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  loop.train(config(), str(workdir))
  return workdir


@pytest.fixture
def disk(tmp_path):
  """A file system of `SIZE` bytes."""
  place = tmp_path / 'disk'
  place.mkdir()
  try:
    subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', f'size={SIZE}', 'atelier-test', str(place)],
      check=True,
      capture_output=True,
    )
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'this user may not mount a small file system: {error}')
  yield place
  subprocess.run(['umount', '--lazy', str(place)], check=True)


def fill(disk, saved=3):
  """Leaves no byte free, once a checkpoint is there."""
  last = time.monotonic() + 60
  while saved and not (disk / 'run' / 'checkpoints' / str(saved)).is_dir():
    assert time.monotonic() < last, 'it was never saved'
    time.sleep(0.01)
  with open(disk / 'filler', 'ab', buffering=0) as file:
    try:
      while file.write(bytes(2**16)):
        pass
    except OSError as error:
      assert error.errno == errno.ENOSPC


def free(disk):
  (disk / 'filler').unlink(missing_ok=True)


@pytest.fixture
def at_steps(monkeypatch):
  """`at_steps({5: call})` has functions called when the loop has dispatched so many steps."""

  def call_at(calls):
    original, waiting = loop._Trainer._next_length, dict(calls)

    def next_length(self, step):
      for each in [each for each in waiting if each <= step]:
        waiting.pop(each)()
      return original(self, step)

    monkeypatch.setattr(loop._Trainer, '_next_length', next_length)

  return call_at


def steps_logged(workdir):
  return [line['step'] for line in runs.metrics(workdir)]


def checkpoints(workdir):
  return sorted(int(each.name) for each in (workdir / 'checkpoints').iterdir())


def test_a_disk_that_is_full_for_a_while(disk, whole, at_steps, capsys):
  workdir = disk / 'run'
  at_steps({5: lambda: fill(disk), 13: lambda: free(disk)})
  loop.train(config(), str(workdir))
  said = capsys.readouterr()
  warnings = [line for line in said.err.splitlines() if 'IS NOT SAVED' in line]
  assert len(warnings) == 3, said.err
  assert f'CHECKPOINT OF STEP 6 IS NOT SAVED in {workdir}: the disk of ' in warnings[0]
  assert 'full; free some space; training goes on, the newest checkpoint is that of step 3; step 9'
  assert 'finished' in said.out
  assert checkpoints(workdir) == [15, 18]
  assert steps_logged(workdir) == [*range(1, STEPS + 1)]
  runs.assert_same_bits(whole, workdir)
