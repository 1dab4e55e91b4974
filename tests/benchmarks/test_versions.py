"""How two versions of the code are timed side by side, and what the figures are."""

import itertools
import json

import pytest

from benchmarks import startup, versions
from benchmarks.cases import Case
from benchmarks.side import ROOT, Side
from errors import UserError

SPEEDS = {'before': [2.0, 2.0, 1.0, 2.0, 4.0, 2.0], 'after': [3.0, 1.0, 3.0, 3.0, 3.0, 5.0]}


@pytest.fixture
def sides(monkeypatch) -> tuple[list, list]:
  """Stands in for the processes; returns how they were started and which steps each side ran."""
  started, calls = [], []

  class FakeSide(Side):
    def __init__(self, command, environment, folder):
      started.append((folder, command))
      self.name = 'after' if folder == ROOT else 'before'
      self.speeds = list(SPEEDS[self.name])

    def speed(self, command: str, steps: int) -> float:
      calls.append((self.name, command, steps))
      return self.speeds.pop(0) if command == 'run' else self.speeds[0]

    def close(self) -> None:
      pass

  monkeypatch.setattr(versions, 'Side', FakeSide)
  return started, calls


def test_each_version_runs_from_its_own_folder(sides):
  versions.speeds(Case(('--config=x',), (), 1.0, program='decode_steps'), '/old', 6, 2.0)
  (old, command), (new, other) = sides[0]
  assert (old, new) == ('/old', ROOT) and command == other
  assert command[1:] == ['-m', 'benchmarks.decode_steps', '--config=x']


def test_both_take_the_same_steps_in_turn(sides):
  versions.speeds(Case((), (), 1.0, steps=1), '/old', rounds=6, seconds=2.0)
  warm, rounds = sides[1][:4], sides[1][4:]
  assert warm == [(side, 'warm', n) for n in (1, 3) for side in ('before', 'after')]
  assert {(command, steps) for _, command, steps in rounds} == {('run', 4)}
  turns = [side for side, _, _ in rounds]
  assert turns == ['before', 'after', 'after', 'before'] * 3


def test_the_figure_is_the_median_of_ratios_within_rounds(sides):
  figures = versions.speeds(Case((), (), 1.0), '/old', rounds=6, seconds=2.0)
  assert (figures['before'], figures['after']) == (2, 3)
  # 1.5, 0.5, 3, 1.5, 0.75 and 2.5.
  assert figures['ratio'] == 1.5 and (figures['low'], figures['high']) == (0.5, 3)


def test_the_interval_covers_the_median():
  """By all 2ⁿ ways in which n values can fall on either side of the median."""
  for n in (6, 9, 15):
    low, high = versions.interval_of_median(range(1, n + 1))
    covered = sum(low <= sum(below) < high for below in itertools.product((0, 1), repeat=n)) / 2**n
    inner = sum(low + 1 <= sum(below) < high - 1 for below in itertools.product((0, 1), repeat=n))
    assert covered >= 0.95 > inner / 2**n
  with pytest.raises(UserError, match='--rounds=5 is too few'):
    versions.interval_of_median(range(5))


def test_starts_are_cold_then_warm_and_in_turn(monkeypatch):
  seen, seconds = [], iter(range(100))

  def first_step(config, cache, folder):
    seen.append((config, cache, folder))
    return float(next(seconds))

  monkeypatch.setattr(startup, 'first_step', first_step)
  medians = versions.starts('configs/x.py', '/old', repeats=2)
  assert [folder for _, _, folder in seen] == [
    '/old',
    ROOT,
    '/old',
    ROOT,
    ROOT,
    '/old',
    ROOT,
    '/old',
  ]
  caches = [cache for _, cache, _ in seen]
  assert caches[0] == caches[2] and caches[1] == caches[3] and len({*caches}) == 4
  assert medians == {'cold': {'before': 2.5, 'after': 2.5}, 'warm': {'before': 4.5, 'after': 4.5}}


@pytest.mark.parametrize(
  ('arguments', 'part'),
  [
    (['--before=/nowhere'], '--before=/nowhere is no checkout'),
    ([f'--before={ROOT}', '--cases=dense_gan'], 'did you mean "dense_gan_'),
    ([f'--before={ROOT}', '--rounds=3'], '--rounds=3 is too few'),
  ],
)
def test_mistakes_in_one_sentence(arguments, part):
  with pytest.raises(UserError, match=part):
    versions.main(arguments)


def test_what_is_printed_and_written(sides, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(versions, 'starts', lambda *_: {'cold': {'before': 9.0, 'after': 8.0}})
  path = tmp_path / 'figures.json'
  versions.main([f'--before={ROOT}/', '--cases=mlp_32', '--rounds=6', f'--json={path}'])
  head, mlp, start = capsys.readouterr().out.splitlines()
  assert mlp.split() == ['mlp_32', '2', '3', '1.500', '[0.500,', '3.000]']
  assert start.split()[:5] == ['cold', 'start,', 's', '9.00', '8.00'] and 'before/s' in head
  assert json.loads(path.read_text())['steps']['mlp_32']['high'] == 3
