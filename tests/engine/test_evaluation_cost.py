"""What an evaluator costs, from the times of its batches."""

import time

import pytest

from configs.defaults import samples
from engine import loop
from engine.evaluation_cost import Stopwatch, cost_note
from engine.evaluators.samples import Samples
from tests.runs import small


def timed(marks, ended, number):
  """The estimate from (done, seconds) of batches, and the time at the end."""
  times = iter([*(seconds for _, seconds in marks), ended])
  stopwatch = Stopwatch(lambda: next(times))
  for done, _ in marks:
    stopwatch(done, {})
  return stopwatch.estimate(number)


def test_what_is_computed_once_does_not_count():
  # 60 s of compiling and 20 for a reference of 200; then 100 samples in 2 s each, and 3 s of sums.
  marks = [(100, 70.0), (200, 80.0), (300, 90.0), (400, 92.0), (500, 94.0), (600, 96.0)]
  assert timed(marks, 99.0, 400) == pytest.approx(4 * 2 + 3)


@pytest.mark.parametrize('marks', [[], [(10, 1.0)], [(10, 1.0), (20, 2.0)]])
def test_of_few_batches_nothing_is_known(marks):
  assert timed(marks, 9.0, 10) is None


def noted(seconds, every=100, pace=10.0, number=1000):
  where = 'config.evaluators.e'
  return cost_note(where, seconds, every, pace, number, lambda fit: f'--{where}.samples={fit}')


def test_the_count_and_the_interval_that_take_a_tenth():
  assert noted(1.1) is None  # of 11.1 s
  told = noted(10.0)
  assert told.startswith('config.evaluators.e takes 10.0 s after every 100 steps, 50% of the time')
  # 10 s of training allow 1.11 s: 111 of 1,000 samples, or nine times as many steps.
  assert told.endswith(
    '--config.evaluators.e.samples=111 or --config.evaluators.e.every=900 would take a tenth'
  )
  assert cost_note('e', 10.0, 100, 10.0, 5, lambda fit: '').count(' or ') == 0
  # Of a fast step even a short evaluation is a large share, which nobody minds.
  assert noted(0.9, every=1) is None


def test_a_run_says_it_once(tmp_path, capsys, monkeypatch):
  from configs import gan

  drawn = Samples._drawn

  def slow(self, *given):
    for batch in drawn(self, *given):
      time.sleep(0.3)
      yield batch

  monkeypatch.setattr(Samples, '_drawn', slow)
  config = small(gan.get_config())
  config.data.update(split='train[:64]', test_split='test[:32]', batch_size=16)
  config.train.update(steps=30, log_every=5, sample_every=30)
  config.checkpoint.best = ''
  config.report.trackers = ()
  config.evaluators.samples = samples(
    dict(name='pixels.BlockMeans', side=2), dict(fd=dict(name='frechet')), every=5, samples=64,
    batch_size=8,
  )  # fmt: skip
  loop.train(config, str(tmp_path / 'run'))
  printed = capsys.readouterr().out
  (line,) = [line for line in printed.splitlines() if 'of the time' in line]
  assert line.startswith('note     config.evaluators.samples takes 2.')
  assert '--config.evaluators.samples.samples=' in line
