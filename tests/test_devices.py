"""The same training on one device and on several, and checkpoints that move between them."""

import json

import numpy as np
import pytest

from tests import processes, runs
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


@pytest.mark.slow
def test_two_processes_of_two_devices_equal_one(one, tmp_path):
  steps = '--config.train.steps=20'
  started = processes.start(2, 'train.py', *arguments(tmp_path / 'run', steps), devices=2)
  outputs = processes.outputs(started)
  assert [process.returncode for process in started] == [0, 0], outputs
  assert '4 × cpu' in outputs[0]
  assert 'step' not in outputs[1], 'only the first process speaks'
  assert_close(one, tmp_path / 'run')


@pytest.mark.slow
def test_two_processes_evaluate_a_run_as_one_does(one, tmp_path, script):
  alone, together = tmp_path / 'alone.json', tmp_path / 'together.json'
  assert script('evaluate.py', f'--workdir={one}', f'--out={alone}').returncode == 0
  words = ('evaluate.py', f'--workdir={one}', f'--out={together}')
  started = processes.start(2, *words, devices=2)
  outputs = processes.outputs(started)
  assert [process.returncode for process in started] == [0, 0], outputs
  assert '4 × cpu' in outputs[0] and 'written' in outputs[0]
  assert 'evaluate' not in outputs[1], 'only the first process speaks'
  found, expected = (json.loads(path.read_text())['metrics'] for path in (together, alone))
  assert expected and found == pytest.approx(expected, rel=2e-4)
