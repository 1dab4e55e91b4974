"""The figures of a cross-validation are those of its folds' runs, however they were trained."""

import dataclasses
import json
import statistics

import numpy as np
import pytest
from ml_collections import ConfigDict

from commands import cli, cross_validate
from commands.cross_validate import spread
from data.section import open_testing
from data.source import open_source
from engine import loop, run
from engine.session import open_session
from errors import UserError
from tests.conftest import ROOT

SPLIT = 'train[:61]'  # 2 folds: 30 and 31 examples, so that fold 1 leaves one out of its training


def small_mlp():
  config = cli.load(f'{ROOT}/configs/mlp.py')
  config.modules.model.widths = (8,)
  config.data.update(split=SPLIT, batch_size=16)
  config.optimizer.model.learning_rate = 0.01
  config.train.update(epochs=0.0, steps=8)
  config.evaluators.test.every = 8
  return config


def read(folder, name='cross_validation.json'):
  return json.loads((folder / name).read_text())


@pytest.fixture(scope='module')
def together(tmp_path_factory):
  """The folder of a cross-validation whose folds are lanes of one run."""
  folder = tmp_path_factory.mktemp('together') / 'cv'
  cross_validate.cross_validate(
    small_mlp(), 2, str(folder), ['-m', 'tools.cross_validate', '--folds=2']
  )
  return folder


def test_every_example_is_held_out_once(together):
  whole = open_source('mnist5k', SPLIT, '').read(range(61))['image']
  session = open_session(ConfigDict(run.read_config(str(together))))
  parts = [
    open_testing(dataclasses.replace(session.data, fold=fold), session.spec)
    for fold in range(session.lanes.number)
  ]
  held_out = np.concatenate([part.read(range(len(part)))['image'] for part in parts])
  assert [len(part) for part in parts] == [30, 31]
  np.testing.assert_array_equal(held_out, whole)
  # Each fold was evaluated on its own part.
  for fold, part in enumerate(parts):
    written = read(together / f'fold_{fold}', 'metrics.json')
    assert written['data']['n'] == len(part)


def test_one_program_and_one_run_after_another_agree(together, tmp_path, capsys):
  """A split that is streamed has no lanes: its folds are ordinary runs of engine/loop.py."""
  folder = together
  config = small_mlp()
  config.data.resident_mb = 0
  cross_validate.cross_validate(config, 2, str(tmp_path), [])
  ours, theirs = read(folder), read(tmp_path)
  assert (ours['made_by']['trained'], theirs['made_by']['trained']) == (
    'as lanes of one run',
    'one after another',
  )
  for fold in range(2):
    a, b = (read(f / f'fold_{fold}', 'metrics.json') for f in (folder, tmp_path))
    assert a['step'] == b['step'] == 8 and a['fold'] == fold
    assert a['data'] == b['data']
    assert a['metrics'].keys() == b['metrics'].keys() >= {'test/accuracy', 'test/loss', 'test/f1'}
    for name, value in b['metrics'].items():
      assert a['metrics'][name] == pytest.approx(value, rel=1e-4), name
  # The folds are other models on other examples, so the above does not agree by itself.
  first, second = (entry['metrics']['test/loss'] for entry in theirs['folds'])
  assert first != pytest.approx(second, rel=1e-2)
  # Every fold is what train.py would make, and is there to be evaluated, and to go on.
  assert run.read_config(str(tmp_path / 'fold_1'))['data']['fold'] == 1
  capsys.readouterr()
  cross_validate.cross_validate(config, 2, str(tmp_path), [])
  assert capsys.readouterr().out.count('complete step 8 of 8') == 2


def test_what_is_written(together):
  folder = together
  written = read(folder)
  for name, mean in written['metrics'].items():
    values = [fold['metrics'][name] for fold in written['folds']]
    assert mean == pytest.approx(statistics.mean(values))
    sd = statistics.stdev(values)
    assert written['standard_deviations'][name] == pytest.approx(sd)
    # t(0.975; 1) = tan(0.475 π) = 12.7062.
    low, high = written['intervals'][name]
    assert [low, high] == pytest.approx(
      [mean - 12.7062 * sd / 2**0.5, mean + 12.7062 * sd / 2**0.5], rel=1e-4, abs=1e-9
    )
  made_by = written['made_by']
  assert made_by['command'] == 'python -m tools.cross_validate --folds=2'
  assert made_by['data']['n'] == made_by['data']['held_out'] == 61
  assert made_by['folds'] == 2 and made_by['config']['data']['folds'] == 0
  assert {'versions', 'devices', 'date'} <= made_by.keys()


def test_a_finished_one_trains_no_more(together, monkeypatch):
  folder = together
  before = read(folder)
  monkeypatch.setattr(loop._Trainer, 'run', lambda *_: pytest.fail('it trained again'))
  cross_validate.cross_validate(small_mlp(), 2, str(folder), [])
  assert read(folder)['folds'] == before['folds']
  other = small_mlp()
  other.train.seed = 5
  with pytest.raises(UserError, match=r'train\.seed: 0 → 5'):
    cross_validate.cross_validate(other, 2, str(folder), [])


def test_spread_by_the_table_of_students_t():
  values = [0.91, 0.93, 0.9, 0.94, 0.95]
  mean, sd, interval = spread(values)
  assert mean == pytest.approx(statistics.mean(values))
  assert sd == pytest.approx(statistics.stdev(values))
  # Two-sided 95 % with 4 degrees of freedom: 2.776.
  half = 2.776 * statistics.stdev(values) / 5**0.5
  assert interval == pytest.approx((mean - half, mean + half), abs=1e-5)
  assert np.isnan(spread([0.5, float('nan')]).mean)


@pytest.mark.parametrize('folds', [-1, 0, 1, 62])
def test_folds_that_cannot_be_cut(folds, tmp_path):
  with pytest.raises(UserError, match=f'the 61 examples .* cannot be cut into folds={folds}'):
    cross_validate.cross_validate(small_mlp(), folds, str(tmp_path / 'x'), [])
  assert not (tmp_path / 'x').exists()


def test_the_command_by_itself(script, tmp_path):
  none = script('-m', 'tools.cross_validate')
  assert none.returncode == 2 and none.stderr.startswith('error: give --config')
  done = script(
    '-m',
    'tools.cross_validate',
    '--config=configs/mlp.py',
    '--config.data.fold=1',
    f'--workdir={tmp_path}',
  )
  assert done.returncode == 2 and 'fold=1 chooses one fold' in done.stderr, done.stderr


def test_seeds_are_no_lanes_beside_folds(tmp_path):
  config = small_mlp()
  config.seeds = 2
  with pytest.raises(UserError, match=r'config\.seeds=2 has no place beside folds'):
    cross_validate.cross_validate(config, 2, str(tmp_path), [])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (['--workdir='], '--workdir= names no folder'),
    (['--config.data.test_split=train'], '--config.data.test_split=train has no effect: each fold'),
  ],
)
def test_flags_of_the_command_without_effect(words, said, script, tmp_path):
  workdir = f'--workdir={tmp_path}/cv'
  done = script('-m', 'tools.cross_validate', '--config=configs/mlp.py', workdir, *words)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1) and said in done.stderr, done.stderr
  assert not list(tmp_path.iterdir())
