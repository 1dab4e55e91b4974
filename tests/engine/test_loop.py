"""What the loop tells a person while it runs."""

from configs import mlp
from engine import loop, report


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
