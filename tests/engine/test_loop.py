"""What the loop tells a person while it runs."""

import json
import shutil

import numpy as np
import pytest

from configs import mlp
from engine import loop, report, session
from engine.checksum import with_sum
from errors import UserError
from tests import runs
from tests.test_transfer import config_of


def test_a_log_file_hears_of_a_step_once(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(report._Plain, 'PAUSE', 0.0)
  config = mlp.get_config()
  config.modules.model.widths = (8,)
  config.train.update(steps=20, log_every=5)
  config.evaluators.test.every = 10
  loop.train(config, str(tmp_path))
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  steps = [words[1] for words in lines if words[0] == 'step']
  # The first dispatch is one step, for its time is not known before.
  assert steps[0] == '1/20' and {'5/20', '10/20', '15/20', '20/20'} <= set(steps)
  assert len(set(steps)) == len(steps)


def test_a_line_shows_the_mean_since_the_last_one_of_the_log(tmp_path, capsys, monkeypatch):
  """Between the lines of the log too, where a step's own loss is something else."""
  monkeypatch.setattr(report._Plain, 'PAUSE', 0.0)
  config = mlp.get_config()
  config.modules.model.widths = (8,)
  config.train.update(steps=24, dispatch=3, log_every=1)
  config.evaluators.test.every = 100
  loop.train(config, str(tmp_path / 'each'))
  each = [line['model/loss'] for line in runs.metrics(tmp_path / 'each')]
  capsys.readouterr()
  config.train.log_every = 12
  loop.train(config, str(tmp_path / 'means'))
  printed = capsys.readouterr().out
  assert 'means since the last multiple of 12 steps' in printed
  lines = [line.split() for line in printed.splitlines() if line.startswith('step ')]
  losses = [float(words[words.index('model/loss') + 1]) for words in lines]
  shown = {int(words[1].split('/')[0]): loss for words, loss in zip(lines, losses)}
  assert {1, 12, 24} < set(shown)
  for step, loss in shown.items():
    first = (step - 1) // 12 * 12
    assert abs(loss - np.mean(each[first:step])) < 1e-3, step


def test_a_schedule_that_jumps_where_a_run_is_extended_is_said(tmp_path, capsys):
  config = config_of(train__steps=10, optimizer__model__schedule__name='cosine')
  loop.train(config, str(tmp_path / 'run'))
  assert 'learning rate' not in capsys.readouterr().out
  config.train.steps = 20
  loop.train(config, str(tmp_path / 'run'))
  said = [line for line in capsys.readouterr().out.splitlines() if 'learning rate' in line]
  rate = config.optimizer.model.learning_rate
  # Half a cosine has passed: cos(π/2) = 0.
  end = config.optimizer.model.schedule.end
  after = rate * ((1 - end) / 2 + end)
  assert said == [
    f'changed  learning rate of model at step 10: {rate * end:.3g} → {after:.3g}, since its '
    'schedule spans the run, which had 10 steps and now has 20'
  ]


@pytest.mark.parametrize('changes', [{'train__steps': 8}, {'train__steps': 8, 'seeds': 2}])
def test_a_schedule_that_stays_is_not_mentioned(tmp_path, capsys, changes):
  config = config_of(**{**changes, 'train__steps': 4})
  loop.train(config, str(tmp_path / 'run'))
  config.train.steps = changes['train__steps']
  loop.train(config, str(tmp_path / 'run'))
  assert 'learning rate' not in capsys.readouterr().out


def test_a_shorter_cosine_is_said_too(tmp_path, capsys):
  config = config_of(
    train__steps=10, checkpoint__every=4, optimizer__model__schedule__name='cosine'
  )
  loop.train(config, str(tmp_path / 'run'))
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '10')
  config.train.steps = 9
  loop.train(config, str(tmp_path / 'run'))
  assert 'which had 10 steps and now has 9' in capsys.readouterr().out


def test_checkpoints_that_are_gone_are_not_trained_over(tmp_path, capsys):
  config = config_of(checkpoint__every=3, train__log_every=1)
  workdir = tmp_path / 'run'
  loop.train(config, str(workdir))
  config.train.steps = 8
  log = (workdir / 'metrics.jsonl').read_text()
  shutil.move(workdir / 'checkpoints', tmp_path / 'aside')
  for _ in range(2):  # The second time in an emptied folder.
    with pytest.raises(UserError, match=r'reached step 6, and its checkpoints, .* are gone'):
      loop.train(config, str(workdir))
    (workdir / 'checkpoints').mkdir(exist_ok=True)
  assert (workdir / 'metrics.jsonl').read_text() == log
  (workdir / 'checkpoints').rmdir()
  shutil.move(tmp_path / 'aside', workdir / 'checkpoints')
  loop.train(config, str(workdir))
  assert 'resumed  from step 6 of 8' in capsys.readouterr().out


def test_the_last_checkpoint_of_a_finished_run_is_missed_too(tmp_path):
  config = config_of(checkpoint__every=100, train__log_every=1)
  loop.train(config, str(tmp_path))
  before = [(tmp_path / name).read_bytes() for name in ('config.json', 'run.json')]
  shutil.rmtree(tmp_path / 'checkpoints')
  for steps in (8, 10):  # What is refused leaves no trace that would let the next one pass.
    config.train.steps = steps
    with pytest.raises(UserError, match=r'reached step 6, and its checkpoints, .* are gone'):
      loop.train(config, str(tmp_path))
  assert [(tmp_path / name).read_bytes() for name in ('config.json', 'run.json')] == before


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again_and_says_so(
  tmp_path, capsys
):
  config = config_of(checkpoint__every=100, train__log_every=1)
  loop.train(config, str(tmp_path))
  shutil.rmtree(tmp_path / 'checkpoints')
  description = json.loads((tmp_path / 'run.json').read_text())
  (tmp_path / 'run.json').write_text(json.dumps(with_sum({**description, 'saved': False})))
  loop.train(config, str(tmp_path))
  said = capsys.readouterr().out
  assert 'restart  from step 0: the run reached step 6, but it had saved no checkpoint yet' in said


def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path, capsys):
  config = config_of(checkpoint__every=3, train__log_every=1)
  loop.train(config, str(tmp_path))
  for folder in (tmp_path / 'checkpoints').iterdir():
    if folder.is_dir():
      (folder / 'meta' / 'metadata').write_text('')
  loop.train(config, str(tmp_path))
  assert 'but all its checkpoints are damaged' in capsys.readouterr().out


def test_a_folder_that_vanishes_while_it_is_trained_in_ends_the_run(tmp_path, monkeypatch):
  workdir, reads = tmp_path / 'run', loop._Trainer._read

  def vanishing(self, step, *arguments):
    if step >= 2 and workdir.exists():
      workdir.rename(tmp_path / 'elsewhere')
    reads(self, step, *arguments)

  monkeypatch.setattr(loop._Trainer, '_read', vanishing)
  with pytest.raises(UserError, match='was moved or removed while it was trained in'):
    loop.train(config_of(), str(workdir))
  assert not (workdir / 'checkpoints').exists()


@pytest.mark.parametrize('warmup', [6, 100])
def test_a_warm_up_longer_than_the_run_is_refused_before_the_data_is_opened(warmup, monkeypatch):
  def opened(*arguments):
    raise AssertionError('the data was opened')

  monkeypatch.setattr(session, 'open_training', opened)
  config = config_of(optimizer__model__schedule__warmup=warmup)
  with pytest.raises(UserError, match=rf'warmup={warmup} must be .* below the 6 steps'):
    session.open_session(config)
