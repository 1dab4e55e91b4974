"""A run split over devices is sampled, evaluated and transferred from with its parameters split."""

import json
import subprocess
import sys

import pytest

from tests import runs
from tests.conftest import ROOT, environment


def measured(workdir, out, devices):
  command = [sys.executable, '-m', 'tests.engine.write_split_run', str(workdir), str(out)]
  done = subprocess.run(
    command, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=240
  )
  assert done.returncode == 0, done.stderr
  return json.loads(out.read_text())


@pytest.mark.slow
def test_a_run_split_over_eight_devices_stays_split(tmp_path):
  workdir = tmp_path / 'run'
  runs.train(
    *runs.SMALL_GPT, f'--workdir={workdir}', '--config.train.steps=4', '--config.mesh.data=1',
    '--config.mesh.fsdp=8', devices=8,
  )  # fmt: skip
  split, alone = (measured(workdir, tmp_path / f'{n}.json', devices=n) for n in (8, 1))
  assert split['tokens'] == alone['tokens'] and split['loaded'] and alone['loaded']
  assert split['figures'] == pytest.approx(alone['figures'], rel=1e-4)
  # An eighth of the matrices, and all of the biases, norms and positions.
  assert alone['params'] == split['whole'] == alone['whole']
  assert split['params'] == split['transferred'] < 0.25 * split['whole']
  # What a program holds besides: tokens and keys, the cache of eight rows, a batch of eight rows.
  for program in ('start', 'advance', 'evaluate'):
    besides = alone[program] - alone['params']
    assert split['params'] <= split[program] <= split['params'] + besides, program
    assert split[program] < 0.6 * alone[program], program
