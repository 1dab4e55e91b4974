"""Whole runs of classifiers: evaluated, explained, resumed, on one device and on four."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from commands import cli, evaluate_run
from commands.sample_run import Request, sample_run
from engine import loop
from engine.restore import restore_run
from errors import UserError
from tests import runs
from tests.conftest import ROOT, environment
from tests.test_transfer import config_of

METRICS = dict(
  report=dict(name='classification.Report'),
  groups=dict(name='groups.Gaps', by=('label',), resamples=200, seed=0),
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('classifier') / 'run'
  config = config_of(train__steps=12)
  config.evaluators.speed.update(calls=5, batch_size=20)
  config.evaluators.test.update(batch_size=20, metrics=METRICS)
  loop.train(config, str(folder))
  return folder


def judged(folder, out):
  evaluate_run.evaluate_run(evaluate_run.Request(str(folder), str(out)), ['evaluate.py'])
  return json.loads(out.read_text())


def test_the_figures_agree_with_one_another(trained, tmp_path):
  written = judged(trained, tmp_path / 'm.json')
  figures, counts = written['metrics'], np.array(written['tables']['test/confusion_matrix'])
  assert counts.shape == (10, 10) and counts.sum() == 32
  np.testing.assert_allclose(figures['test/accuracy'], np.trace(counts) / 32)
  present = counts.sum(1) > 0
  recall = np.diag(counts)[present] / counts.sum(1)[present]
  np.testing.assert_allclose(figures['test/recall'], recall.mean())
  np.testing.assert_allclose(figures['test/accuracy_gap_label'], recall.max() - recall.min())
  low, high = written['intervals']['test/accuracy_gap_label']
  assert low <= figures['test/accuracy_gap_label'] <= high
  assert 0 < figures['speed/latency_ms/p50'] <= figures['speed/latency_ms/p99']
  assert figures['speed/examples_per_second'] > 0
  assert Image.open(tmp_path / 'test_confusion_matrix.png').size[0] > 300
  logged = [m for m in runs.metrics(trained) if 'test/f1' in m][-1]
  np.testing.assert_allclose(logged['test/f1'], figures['test/f1'])
  assert not any(name.startswith('test/f1/') for name in logged)


@pytest.mark.slow
def test_every_example_counts_once_on_four_devices(trained, tmp_path):
  out = tmp_path / 'four.json'
  code = (
    'from engine import runtime; runtime.prepare()\n'
    'from commands.evaluate_run import Request, evaluate_run\n'
    f'evaluate_run(Request({str(trained)!r}, {str(out)!r}), ["x"])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, env=environment(4), capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  four, one = json.loads(out.read_text()), judged(trained, tmp_path / 'one.json')
  assert '4 ×' in four['made_by']['devices'] and '1 ×' in one['made_by']['devices']
  assert four['tables']['test/confusion_matrix'] == one['tables']['test/confusion_matrix']
  np.testing.assert_allclose(four['metrics']['test/loss'], one['metrics']['test/loss'], rtol=1e-5)


def test_explanations_are_rendered_and_there_are_no_samples(trained, tmp_path):
  out = tmp_path / 'explain.npz'
  request = Request(str(trained), 'explain', 3, str(out))
  sample_run(request)
  with np.load(out) as arrays:
    assert arrays['image'].shape == (3, 4, 28, 28, 3)
  with pytest.raises(
    UserError,
    match=r'is not sampled from, which --kind=prior would do; choose --kind from: explain',
  ):
    sample_run(request._replace(kind='prior'))


def test_a_cut_run_of_everything_random_ends_with_the_same_bits(tmp_path):
  """Batch statistics, dropout, crops, flips, cutout, mixup and averages, cut in mid-epoch."""

  def config(steps):
    config = cli.load(f'{ROOT}/configs/resnet.py')
    model = dict(stem=4, widths=(4,), blocks=(1,), dropout=0.3)
    config.modules.model.update(model)
    config.optimizer.model.schedule.warmup = 2
    config.data.augment.update(dict(crop=2, flip=True, cutout=8, mixup=0.3))
    config.data.split, config.data.test_split = 'train[:60]', 'test[:20]'
    config.data.batch_size = 16
    config.train.epochs, config.train.steps = 0.0, steps
    config.evaluators.test.metrics = {}
    # Else the schedule of the shorter run would end sooner.
    config.optimizer.model.schedule.name = 'constant'
    return config

  loop.train(config(7), str(tmp_path / 'whole'))
  loop.train(config(3), str(tmp_path / 'cut'))
  loop.train(config(7), str(tmp_path / 'cut'))
  runs.assert_same_bits(tmp_path / 'whole', tmp_path / 'cut')
  held = restore_run(str(tmp_path / 'cut'), 'latest').weights
  assert any(np.abs(np.asarray(leaf)).sum() for leaf in jax.tree.leaves(held.mutable))


def test_one_sentence_for_a_regression_of_labels(tmp_path):
  config = config_of(objective__loss='squared')
  with pytest.raises(UserError, match='learns a "target", and the data has only image, label'):
    loop.train(config, str(tmp_path / 'run'))
