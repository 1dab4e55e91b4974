"""A run that gains no more ends by itself, says so, and is used at its best."""

import pytest

from engine import loop
from engine.restore import restore_run
from errors import UserError
from tests import runs
from tests.test_transfer import config_of


def waiting(**changes):
  """Evaluated every second step, with a rate so high that it only gets worse."""
  return config_of(
    **{
      'train__steps': 40,
      'evaluators__test__every': 2,
      'train__log_every': 2,
      'train__patience': 2,
      'checkpoint__best': 'test/loss',
      'checkpoint__best_mode': 'min',
      'checkpoint__every': 5,
      'optimizer__model__learning_rate': 3.0,
      **changes,
    }
  )


def test_it_ends_after_the_patience_and_keeps_the_best(tmp_path, capsys):
  folder = tmp_path / 'run'
  loop.train(waiting(), str(folder))
  losses = {m['step']: m['test/loss'] for m in runs.metrics(folder) if 'test/loss' in m}
  last, best = max(losses), min(losses, key=losses.get)
  # Worked out again from the log: the first evaluation that ends two without a new lowest.
  lowest, waited = float('inf'), 0
  for step, loss in sorted(losses.items()):
    waited = 0 if loss < lowest else waited + 1
    lowest = min(lowest, loss)
    assert (waited == 2) == (step == last)
  assert last < 40 and best == last - 4
  said = capsys.readouterr().out
  ended = (
    f'finished early: no gain in test/loss for 2 evaluations, the best was {lowest:.5g} of step'
  )
  assert f'{ended} {best};' in said
  assert restore_run(str(folder), '').step == best
  assert restore_run(str(folder), 'latest').step == last

  loop.train(waiting(), str(folder))
  assert f'complete step {last} of 40 (stopped early)' in capsys.readouterr().out
  loop.train(waiting(train__patience=3), str(folder))
  more = [m['step'] for m in runs.metrics(folder) if 'test/loss' in m]
  assert more[: len(losses)] == sorted(losses) and max(more) == last + 2


def test_a_resumed_run_has_waited_already(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  loop.train(waiting(), str(whole))
  last = max(m['step'] for m in runs.metrics(whole))
  loop.train(waiting(train__steps=last - 2), str(cut))
  loop.train(waiting(), str(cut))
  assert max(m['step'] for m in runs.metrics(cut)) == last


def test_patience_needs_a_figure_to_wait_for(tmp_path):
  with pytest.raises(UserError, match='patience=2 waits for a gain in config'):
    loop.train(waiting(checkpoint__best=''), str(tmp_path / 'a'))
  with pytest.raises(UserError, match=r'best=test/los is unknown .*did you mean "test/loss"'):
    loop.train(waiting(checkpoint__best='test/los'), str(tmp_path / 'b'))


def test_epochs_end_a_run(tmp_path):
  config = config_of(train__epochs=1.5, train__steps=100)
  loop.train(config, str(tmp_path / 'run'))
  assert restore_run(str(tmp_path / 'run'), 'latest').step == 6
  config.train.steps = 5
  loop.train(config, str(tmp_path / 'shorter'))
  assert restore_run(str(tmp_path / 'shorter'), 'latest').step == 5


def test_a_figure_that_is_never_defined_ends_in_a_sentence(tmp_path, monkeypatch, capsys):
  from engine.evaluators.base import Figure
  from engine.evaluators.examples import Examples

  evaluate = Examples.evaluate

  def undefined(self, *arguments):
    results = evaluate(self, *arguments)
    return results._replace(figures={name: Figure(float('nan')) for name in results.figures})

  monkeypatch.setattr(Examples, 'evaluate', undefined)
  for gain in (0.0, 0.5):
    folder = str(tmp_path / f'run_{gain}')
    loop.train(waiting(train__minimum_gain=gain), folder)
    said = capsys.readouterr().out
    assert 'for 2 evaluations, the best was never defined;' in said
    assert restore_run(folder, '').step == 4
