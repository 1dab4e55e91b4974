"""A run whose folder is in a bucket: trained, resumed and sampled as one on a disk."""

import json

import numpy as np
import pytest

import files
from commands.sample_run import Request, sample_run
from configs import gan
from engine import loop
from tests import runs

PLACE = 'gs://some/runs/gan'


def config_of(steps):
  """Two players of few units that keep the newest two checkpoints, one every other step."""
  config = runs.small(gan.get_config())
  config.data.update(split='train[:64]', test_split='test[:32]', batch_size=16)
  config.train.update(steps=steps, log_every=2, sample_every=4)
  config.checkpoint.update(every=2, keep=2, best='')
  config.report.trackers = ()  # TensorBoard has its own way into buckets.
  config.evaluators.samples.update(samples=32, batch_size=32, every=4)
  config.evaluators.samples.features.side = 4
  return config


def sampled(workdir, out):
  sample_run(Request(workdir, num=4, out=str(out)))
  with np.load(out) as arrays:
    return {name: arrays[name].tobytes() for name in arrays}


@pytest.mark.slow
def test_a_run_is_saved_resumed_and_sampled(bucket_of_runs, tmp_path, capsys):
  whole = str(tmp_path / 'whole')
  loop.train(config_of(8), whole)
  loop.train(config_of(4), PLACE)
  capsys.readouterr()
  loop.train(config_of(8), PLACE)
  assert f'resumed  from step 4 of 8 in {PLACE}' in capsys.readouterr().out
  runs.assert_same_bits(PLACE, whole)
  assert sampled(PLACE, tmp_path / 'ours.npz') == sampled(whole, tmp_path / 'whole.npz')
  lines = (files.path(PLACE) / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [2, 4, 6, 8]
  # Every object of the older checkpoints is gone, and so is the lock.
  names = [name.removeprefix('some/runs/gan/') for name in bucket_of_runs.objects]
  kept = {name.split('/')[1] for name in names if name.startswith('checkpoints/')}
  assert kept == {'6', '8'} and '.lock' not in names
