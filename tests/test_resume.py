"""A run that is killed and started again ends with the same bits as one that was not."""

import shutil
import signal

import numpy as np
import pytest

from tests import runs
from tests.golden import short_runs
from tests.golden.short_runs import STEPS, arguments


def steps_logged(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_text().count('\n') if path.exists() else 0


def checkpoint_begun(workdir, step):
  folder = workdir / 'checkpoints'
  return folder.is_dir() and any(p.name.startswith(f'{step}') for p in folder.iterdir())


@pytest.fixture(scope='module')
def family():
  """(arguments, folder of an uninterrupted run): two players, and running statistics."""
  return short_runs.RUNS['gan'].flags, short_runs.folder('gan')


def test_killed_at_any_moment(family, tmp_path, script):
  """kill -9 while compiling, and while checkpoints are being written."""
  small, whole = family
  workdir = tmp_path / 'killed'
  moments = [
    lambda: (workdir / 'config.json').exists(),
    lambda: checkpoint_begun(workdir, 30),
    lambda: checkpoint_begun(workdir, 50),
  ]
  for moment in moments:
    process = runs.kill_when(arguments(small, workdir), signal.SIGKILL, moment)
    assert process.returncode == -signal.SIGKILL
  done = script('train.py', *arguments(small, workdir))
  assert done.returncode == 0, done.stderr
  assert 'resumed' in done.stdout
  runs.assert_same_bits(whole, workdir)
  # The log has every line once, and the same figures.
  ours, theirs = runs.metrics(workdir), runs.metrics(whole)
  assert [line['step'] for line in ours] == [line['step'] for line in theirs]
  for a, b in zip(ours, theirs):
    if a['step'] % 7 == 0 and 'generator/loss' in b:
      drawn_over = a['step'] - a['step'] % 10  # a log interval cut by a resume is shorter
      if drawn_over <= a['step'] - 7:
        np.testing.assert_allclose(a['generator/loss'], b['generator/loss'], rtol=1e-6)


@pytest.mark.parametrize(
  'number, code', [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_stopped_by_a_signal(family, tmp_path, script, number, code):
  small, whole = family
  workdir = tmp_path / 'stopped'
  stopped = runs.kill_when(arguments(small, workdir), number, lambda: steps_logged(workdir) >= 1)
  if stopped.returncode == 0:
    pytest.skip('the run was over before the signal came')
  assert stopped.returncode == code, stopped.output
  assert 'run the same command to go on' in stopped.output
  assert 'Traceback' not in stopped.output
  done = script('train.py', *arguments(small, workdir))
  assert done.returncode == 0, done.stderr
  runs.assert_same_bits(whole, workdir)


@pytest.mark.slow
def test_other_lengths_of_dispatch_change_nothing(family, tmp_path, script):
  small, whole = family
  workdir = tmp_path / 'short'
  done = script('train.py', *arguments(small, workdir, '--config.train.dispatch=3'))
  assert done.returncode == 0, done.stderr
  runs.assert_same_bits(whole, workdir)


def test_a_damaged_newest_checkpoint_is_set_aside(family, tmp_path, script):
  small, whole = family
  workdir = tmp_path / 'damaged'
  shutil.copytree(whole, workdir)
  # Half of the largest file, as a crashed disk leaves it; flipped bits are in test_checkpoint.py.
  files = [
    p for p in (workdir / 'checkpoints' / str(STEPS) / 'variables').rglob('*') if p.is_file()
  ]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  done = script('train.py', *arguments(small, workdir))
  assert done.returncode == 0, done.stderr
  assert 'set aside' in done.stderr
  assert (workdir / 'damaged_checkpoints' / str(STEPS)).is_dir()
  runs.assert_same_bits(whole, workdir)


def test_complete_and_another_config(family, script):
  small, whole = family
  done = script('train.py', *arguments(small, whole))
  assert done.returncode == 0 and 'complete' in done.stdout
  other = script('train.py', *arguments(small, whole, '--config.train.seed=5'))
  assert other.returncode == 2
  assert 'train.seed: 0 → 5' in other.stderr and 'Traceback' not in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vae', 'vqvae'])
def test_one_player_resumes_as_exactly(name, tmp_path, script):
  """A warm-up that reads the step, binarised pixels; a codebook that no optimizer moves."""
  killed = arguments(short_runs.RUNS[name].flags, tmp_path / 'killed')
  runs.kill_when(killed, signal.SIGKILL, lambda: checkpoint_begun(tmp_path / 'killed', 30))
  done = script('train.py', *killed)
  assert done.returncode == 0 and 'resumed' in done.stdout, done.stderr
  runs.assert_same_bits(short_runs.folder(name), tmp_path / 'killed')
