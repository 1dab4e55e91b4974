"""What the loop tells a person while it runs."""

import numpy as np

from configs import mlp
from engine import loop, report
from tests import runs


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
  assert 'means over the steps since the last multiple of 12' in printed
  lines = [line.split() for line in printed.splitlines() if line.startswith('step ')]
  losses = [float(words[words.index('model/loss') + 1]) for words in lines]
  shown = {int(words[1].split('/')[0]): loss for words, loss in zip(lines, losses)}
  assert {1, 12, 24} < set(shown)
  for step, loss in shown.items():
    first = (step - 1) // 12 * 12
    assert abs(loss - np.mean(each[first:step])) < 1e-3, step
