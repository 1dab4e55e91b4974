"""The same training on one device and on several, and checkpoints that move between them."""

import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import runs
from tests.conftest import ROOT, environment
from tests.marks import slow_where


def arguments(workdir, *more):
  return (*runs.SMALL_GAN, *runs.every(5, 10, 20), f'--workdir={workdir}', *more)


def assert_close(a, b, tolerance=2e-4):
  first, second = runs.leaves(a), runs.leaves(b)
  for name in first:
    if first[name].dtype.kind == 'f':
      np.testing.assert_allclose(first[name], second[name], atol=tolerance, err_msg=name)


MESHES = {
  'data': ('--config.mesh.data=8',),
  'all axes': ('--config.mesh.data=2', '--config.mesh.fsdp=2', '--config.mesh.tensor=2'),
}


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('one') / 'run'
  runs.train(*arguments(workdir, '--config.train.steps=20'))
  return workdir


@pytest.mark.parametrize('mesh', slow_where(lambda mesh: mesh == 'data', MESHES))
def test_eight_devices_equal_one(one, mesh, tmp_path, script):
  more = ('--config.train.steps=20', '--config.data.batch_size=16', *MESHES[mesh])
  done = script('train.py', *arguments(tmp_path / 'run', *more), devices=8)
  assert done.returncode == 0, done.stderr
  assert '8 × cpu' in done.stdout
  assert_close(one, tmp_path / 'run')


@pytest.mark.slow
def test_saved_on_four_restored_on_one(one, tmp_path, script):
  workdir = tmp_path / 'run'
  done = script('train.py', *arguments(workdir, '--config.train.steps=10'), devices=4)
  assert done.returncode == 0, done.stderr
  done = script('train.py', *arguments(workdir, '--config.train.steps=20'), devices=1)
  assert done.returncode == 0, done.stderr
  assert 'resumed  from step 10 of 20' in done.stdout
  assert_close(one, workdir)


def test_a_batch_that_does_not_divide(tmp_path, script):
  done = script('train.py', *arguments(tmp_path, '--config.data.batch_size=12'), devices=8)
  assert done.returncode == 2
  assert 'make it a multiple of 8' in done.stderr and 'Traceback' not in done.stderr


def test_a_mesh_that_does_not_fit(tmp_path, script):
  done = script('train.py', *arguments(tmp_path, '--config.mesh.fsdp=3'), devices=4)
  assert done.returncode == 2 and 'there are 4 devices' in done.stderr


def start_two(*command):
  """Two processes of one job on this machine, of two devices each."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  return [
    subprocess.Popen(
      [sys.executable, *command, '--distributed'],
      cwd=ROOT,
      env=environment(
        2, JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2', JAX_PROCESS_ID=str(i)
      ),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]


def test_two_processes_equal_one(one, tmp_path):
  processes = start_two('train.py', *arguments(tmp_path / 'run', '--config.train.steps=20'))
  outputs = [process.communicate(timeout=240)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert '4 × cpu' in outputs[0]
  assert 'step' not in outputs[1], 'only the first process speaks'
  assert_close(one, tmp_path / 'run')


@pytest.mark.slow
def test_two_processes_evaluate_a_run_as_one_does(one, tmp_path, script):
  alone, together = tmp_path / 'alone.json', tmp_path / 'together.json'
  assert script('evaluate.py', f'--workdir={one}', f'--out={alone}').returncode == 0
  processes = start_two('evaluate.py', f'--workdir={one}', f'--out={together}')
  outputs = [process.communicate(timeout=240)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert '4 × cpu' in outputs[0] and 'written' in outputs[0]
  assert 'evaluate' not in outputs[1], 'only the first process speaks'
  found, expected = (json.loads(path.read_text())['metrics'] for path in (together, alone))
  assert expected and found == pytest.approx(expected, rel=2e-4)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_and_saves_the_job(tmp_path):
  log = tmp_path / 'run' / 'metrics.jsonl'
  # The second process gets the signal; nothing is due to be saved before.
  more = ('--config.train.steps=100000', '--config.checkpoint.every=50000')
  longer = ('--config.evaluators.test.every=50000', '--config.train.sample_every=50000',
            '--config.evaluators.samples.every=50000')  # fmt: skip
  processes = start_two('train.py', *arguments(tmp_path / 'run', *more, *longer))
  deadline = time.time() + 120
  while not (log.exists() and log.read_text().count('\n') >= 2):
    assert time.time() < deadline and processes[0].poll() is None
    time.sleep(0.05)
  processes[1].send_signal(signal.SIGTERM)
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [143, 143], outputs
  assert 'stopped  by SIGTERM' in outputs[0]
  assert len(runs.leaves(tmp_path / 'run')) > 0
