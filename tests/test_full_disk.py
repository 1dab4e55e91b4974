"""A disk that is full, or can only be read, while a run trains: it goes on, and loses nothing."""

import contextlib
import errno
import os
import signal
import struct
import subprocess
import threading
import time

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

import files
from engine import loop, report
from engine.trackers.tensorboard import TensorBoard
from engine.tracking import Tracked
from tests import processes, runs
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


def fill(disk, saved=3, room=False):
  """Leaves no byte free, or all with `room`, once a checkpoint is there."""
  last = time.monotonic() + 60
  while saved and not (disk / 'run' / 'checkpoints' / str(saved)).is_dir():
    assert time.monotonic() < last, 'it was never saved'
    time.sleep(0.01)
  if room:
    return
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


def checkpoints(workdir):
  return sorted(int(each.name) for each in (workdir / 'checkpoints').iterdir())


def events(workdir):
  """The steps of the loss in all of TensorBoard's files."""
  found = set()
  for path in workdir.glob('events.out.tfevents.*'):
    content, at = path.read_bytes(), 0
    while at < len(content):
      (length,) = struct.unpack_from('<Q', content, at)
      event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
      found |= {event.step for value in event.summary.value if value.tag == 'model/loss'}
      at += 12 + length + 4
  return found


def test_a_disk_that_is_full_for_a_while(disk, whole, at_steps, capsys):
  """Nothing is missing at the end, but the samples and checkpoints of that while."""
  workdir = disk / 'run'
  at_steps({5: lambda: fill(disk), 13: lambda: free(disk)})
  loop.train(config(), str(workdir))
  said = capsys.readouterr()
  warnings = said.err.splitlines()
  unsaved = [line for line in warnings if 'IS NOT SAVED' in line]
  assert [f'THE CHECKPOINT OF STEP {step} IS' in line for step, line in zip((6, 9, 12), unsaved)]
  assert len(unsaved) == 3 and len({*warnings}) == len(warnings), said.err
  assert f'IS NOT SAVED in {workdir}: the disk of {disk}' in unsaved[0]
  assert 'is full; free some space; training goes on, the newest checkpoint is that' in unsaved[0]
  assert 'that of step 3; step 9 is saved next' in unsaved[0]
  assert 'finished step 18' in said.out
  assert checkpoints(workdir) == [15, 18]
  every = [*range(1, STEPS + 1)]
  assert [line['step'] for line in runs.metrics(workdir)] == every
  assert events(workdir) == {*every}
  assert not [path for path in workdir.rglob('*') if path.name.endswith(('.part', '.trial'))]
  runs.assert_same_bits(whole, workdir)


def test_a_disk_that_stays_full(disk, whole, at_steps, capsys):
  """The run ends with 74, and the same command goes on once there is room."""
  workdir = disk / 'run'
  at_steps({5: lambda: fill(disk)})
  with pytest.raises(SystemExit) as left:
    loop.train(config(), str(workdir))
  assert left.value.code == 74
  said = capsys.readouterr()
  last = said.err.strip().splitlines()
  (error,) = [line for line in last if line.startswith('error: ')]
  assert f'step 18 of 18 could not be saved in {workdir}' in error
  assert error.endswith('then the same command goes on from step 3')
  assert 'finished' not in said.out and 'Traceback' not in said.err
  assert checkpoints(workdir) == [3]
  free(disk)
  loop.train(config(), str(workdir))
  said = capsys.readouterr()
  assert 'resumed  from step 3 of 18' in said.out and 'NOT SAVED' not in said.err
  assert [line['step'] for line in runs.metrics(workdir)] == [*range(1, STEPS + 1)]
  runs.assert_same_bits(whole, workdir)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_whose_save_is_refused_is_no_success(disk, at_steps, capsys, number):
  workdir = disk / 'run'
  at_steps({5: lambda: fill(disk), 7: lambda: os.kill(os.getpid(), number)})
  with pytest.raises(SystemExit) as left:
    loop.train(config(), str(workdir))
  assert left.value.code == 74
  said = capsys.readouterr()
  assert 'error: step 8 of 18 could not be saved' in said.err and 'stopped  by' not in said.out
  assert 'the run ends here' in said.err
  assert checkpoints(workdir) == [3]


def test_a_run_that_could_never_save_starts_again(disk, at_steps, capsys):
  """Its checkpoints are not gone: there were none."""
  workdir = disk / 'run'
  at_steps({1: lambda: fill(disk, saved=0)})
  with pytest.raises(SystemExit):
    loop.train(config(), str(workdir))
  assert 'newest checkpoint is none, so that it would start from' in capsys.readouterr().err
  free(disk)
  loop.train(config(), str(workdir))
  said = capsys.readouterr().out
  assert 'but it had saved no checkpoint yet' in said and 'finished step 18' in said


def test_a_folder_that_can_only_be_read_for_a_while(tmp_path, whole, at_steps, monkeypatch, capsys):
  """As a network folder is that comes back; every call that writes in it is refused."""
  workdir = tmp_path / 'run'
  place = str(workdir)
  made, opened = os.mkdir, open

  def refuse(path):
    if str(path).startswith(place):
      raise OSError(errno.EROFS, 'Read-only file system', str(path))

  def read_only():
    fill(tmp_path, room=True)
    monkeypatch.setattr(os, 'mkdir', lambda path, *more: (refuse(path), made(path, *more)))
    monkeypatch.setattr(
      'builtins.open',
      lambda path, mode='r', *more, **options: (
        refuse(path) if {*mode} & {*'wax'} else None, opened(path, mode, *more, **options)
      )[1],
    )  # fmt: skip

  at_steps({5: read_only, 10: monkeypatch.undo})
  loop.train(config(train__sample_every=4), place)
  said = capsys.readouterr()
  unsaved = [line for line in said.err.splitlines() if 'IS NOT SAVED' in line]
  assert len(unsaved) == 2 and 'can only be read; choose another place' in unsaved[0], said.err
  assert checkpoints(workdir) == [15, 18]
  runs.assert_same_bits(whole, workdir)


def test_a_log_on_a_full_disk(disk, capsys):
  """One warning for lines and one for samples; the lines are written later, those samples not."""
  shown = report.Shown(('seed 0',), ('test',), '', {}, '', ())
  log, name = report.Report(str(disk), 0, 99, shown, visible=True), f'test/{"x" * 300}'
  log.scalars(1, None, [{name: 1.0}])
  fill(disk, saved=0)
  for step in range(2, 40):
    log.scalars(step, None, [{name: 1.0}])
    log.samples(step, 'image', [np.zeros((4, 8, 8, 1))])
  warnings = capsys.readouterr().err.splitlines()
  assert [line.split(' from step')[0] for line in warnings if 'metrics' in line] == [
    'warning: metrics.jsonl lacks lines'
  ]
  assert [line.split(': the disk of')[0] for line in warnings if 'samples' in line] == [
    'warning: the samples of step 2 are not written'
  ]
  free(disk)
  log.scalars(40, None, [{name: 1.0}])
  log.samples(40, 'image', [np.zeros((4, 8, 8, 1))])
  log.close()
  assert capsys.readouterr().err == ''
  assert [line['step'] for line in runs.metrics(disk)] == [*range(1, 41)]
  assert [path.name for path in (disk / 'samples').iterdir()] == ['step_00000040.png']


def test_lines_that_are_still_missing_at_the_end_are_said(disk, capsys):
  shown = report.Shown(('seed 0',), ('test',), '', {}, '', ())
  log = report.Report(str(disk), 0, 99, shown, visible=True)
  fill(disk, saved=0)
  for step in range(1, 40):
    log.scalars(step, None, [{f'test/{"x" * 300}': 1.0}])
  capsys.readouterr()
  log.close()
  assert 'metrics.jsonl lacks its last lines: the disk of' in capsys.readouterr().err


def test_tensorboard_does_not_wait_for_a_full_disk(disk):
  """Its thread lives on, and what it could not write is written at the end."""
  tracker = TensorBoard(Tracked(disk, 0, {}, ''))
  fill(disk, saved=0)

  def send():
    for step in range(1, 3001):
      tracker.figures(step, {'model/loss': 1.0})

  sender = threading.Thread(target=send, daemon=True)
  sender.start()
  sender.join(60)
  assert not sender.is_alive(), 'it waits for a thread that has ended'
  free(disk)
  tracker.close()
  assert events(disk) == {*range(1, 3001)}


def test_tensorboard_says_what_is_missing_at_the_end(disk):
  tracker = TensorBoard(Tracked(disk, 0, {}, ''))
  fill(disk, saved=0)
  for step in range(1, 1001):
    tracker.figures(step, {'model/loss': 1.0})
  with pytest.raises(OSError, match='No space left'):
    tracker.close()


def test_a_full_disk_under_the_output_ends_nothing():
  with open('/dev/full', 'w') as full:
    report._print('a line', full)
    with contextlib.suppress(OSError):
      full.close()
  with pytest.raises(ValueError, match='closed'):
    report._print('a line', full)


def test_lines_that_were_refused_are_written_whole(disk):
  """Also one of which a part was written."""
  lines = files.append_lines(files.path(disk / 'log'))
  lines.add('first')
  fill(disk, saved=0)
  longer = [f'{number} {"x" * 3000}' for number in range(4)]
  refused = 0
  for line in longer:
    try:
      lines.add(line)
    except OSError:
      refused += 1
  assert refused
  free(disk)
  lines.add('last')
  lines.close()
  assert (disk / 'log').read_text().splitlines() == ['first', *longer, 'last']


# --- several processes ----------------------------------------------------------------------------

SMALL = (
  *runs.SMALL_GAN, *runs.every(5, 10, 20), '--config.evaluators.samples.every=20',
  '--config.train.steps=40', '--config.train.dispatch=1',
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('process', [0, 1])
def test_processes_agree_on_a_save_that_one_of_them_could_not_write(tmp_path, process):
  """It fails in the background, where Orbax's own barrier would wait for 20 minutes."""
  workdir = tmp_path / 'run'
  words = (
    '-m',
    'tests.train_refused',
    *SMALL,
    f'--workdir={workdir}',
    '--config.checkpoint.keep=9',
  )
  started = processes.start(2, *words, REFUSED_PROCESS=str(process), REFUSED_SAVES='2')
  said = processes.outputs(started, timeout=900)
  assert [each.returncode for each in started] == [0, 0], said
  assert said[0].count('THE CHECKPOINT OF STEP 20 IS NOT SAVED') == 1, said[0]
  assert 'step 30 is saved next' in said[0] and 'NOT SAVED' not in said[1]
  assert checkpoints(workdir) == [10, 30, 40]
  assert runs.leaves(workdir)['.step'] == 40


@pytest.mark.slow
def test_processes_end_together_where_the_last_save_was_refused(tmp_path):
  workdir = tmp_path / 'run'
  words = ('-m', 'tests.train_refused', *SMALL, f'--workdir={workdir}')
  started = processes.start(2, *words, REFUSED_PROCESS='1', REFUSED_SAVES='3,4')
  said = processes.outputs(started, timeout=900)
  assert [each.returncode for each in started] == [74, 74], said
  assert 'goes on from step 20' in said[0] and 'error: ' not in said[1]
  assert checkpoints(workdir) == [10, 20]


@pytest.mark.slow
def test_a_signal_to_processes_whose_disk_is_full(disk):
  workdir = disk / 'run'
  endless = ('--config.train.steps=1000000', '--config.checkpoint.every=200')
  started = processes.start(2, 'train.py', *SMALL, *endless, f'--workdir={workdir}')
  with processes.ended_at_last(started):
    processes.wait_until(lambda: (workdir / 'checkpoints' / '200').is_dir(), started)
    fill(disk, saved=0)
    started[1].send_signal(signal.SIGTERM)
    said = processes.outputs(started, timeout=900)
  assert [each.returncode for each in started] == [74, 74], said
  assert 'error: step' in said[0] and 'Traceback' not in ''.join(said)
  assert 200 in checkpoints(workdir)
