"""How a comparison drives its sides, and what its figure is."""

import itertools

import pytest

from benchmarks import compare
from benchmarks.cases import CASES, Case
from benchmarks.side import Side


@pytest.fixture
def sides(monkeypatch) -> tuple[list, list]:
  """Stands in for the processes: 3 steps a second for us, 2, 2 and 1 for the peer.

  Returns the commands that were started, and which steps each side ran.
  """
  commands, calls = [], []

  class FakeSide(Side):
    def __init__(self, command, environment):
      del environment
      commands.append(command)
      self.ours = command[0] != 'p'
      self.speeds = [3.0, 3.0, 3.0] if self.ours else [2.0, 2.0, 1.0]

    def speed(self, command: str, steps: int) -> float:
      calls.append(('ours' if self.ours else 'peer', command, steps))
      return self.speeds.pop(0) if command == 'run' else self.speeds[0]

    def close(self) -> None:
      pass

  monkeypatch.setattr(compare, 'Side', FakeSide)
  return commands, calls


def test_the_figure_is_the_median_of_ratios_within_rounds(sides):
  case = Case((), ('x.py',), target=3.0)
  figures = compare.compare(case, 'p', rounds=3, seconds=2.0, threads=2)
  assert (figures['ours'], figures['peer']) == (3, 2)
  assert figures['ratio'] == 1.5 and figures['lowest'] == 1.5 and figures['highest'] == 3
  assert figures['target'] == 3.0


def test_rounds_alternate_after_both_are_warm(sides):
  compare.compare(Case((), ('x.py',), target=3.0, steps=1), 'p', rounds=2, seconds=2.0, threads=2)
  warm, rounds = sides[1][:4], sides[1][4:]
  assert warm == [(side, 'warm', n) for side in ('ours', 'peer') for n in (1, 3)]
  assert rounds == 2 * [('ours', 'run', 6), ('peer', 'run', 4)]


def test_a_round_has_a_least_number_of_steps(sides):
  compare.compare(Case((), ('x.py',), target=3.0, steps=5), 'p', rounds=1, seconds=1.0, threads=2)
  assert sides[1][4:] == [('ours', 'run', 5), ('peer', 'run', 5)]


def test_both_sides_write_as_many_texts_of_the_same_length(sides):
  compare.compare(CASES['decode_small_8'], 'p', rounds=1, seconds=1.0, threads=2)
  ours, peer = (dict(itertools.pairwise(command)) for command in sides[0])
  assert ours['-m'] == 'benchmarks.decode_steps'
  assert {'--num=8', '--length=256'} <= {*sides[0][0]}
  assert peer['benchmarks/peers/torch_gpt.py'] == 'generate'
  assert peer['--batch-size'] == '8' and peer['--length'] == peer['--context'] == '256'
