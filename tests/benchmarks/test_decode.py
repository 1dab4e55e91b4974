"""How the comparison of writing turns texts per second into its figures."""

import pytest

from benchmarks import decode
from benchmarks.cases import Decoding
from benchmarks.compare import Side


@pytest.fixture
def sides(monkeypatch) -> tuple[list, list]:
  """Stands in for the processes: 3 draws a second for us, 2, 2 and 1 for the peer.

  Returns the commands that were started, and what was asked of whom.
  """
  commands, asked = [], []

  class FakeSide(Side):
    def __init__(self, command, environment):
      del environment
      commands.append(command)
      self.ours = 'benchmarks.decode_steps' in command
      self.speeds = [3.0, 3.0, 3.0] if self.ours else [2.0, 2.0, 1.0]

    def ask(self, word: str, steps: int) -> float:
      asked.append(('ours' if self.ours else 'peer', word, steps))
      return self.speeds.pop(0) if word == 'run' else self.speeds[0]

    def close(self) -> None:
      pass

  monkeypatch.setattr(decode, 'Side', FakeSide)
  return commands, asked


def test_tokens_per_second_are_those_drawn(sides):
  case = Decoding(('--config=x',), ('--layers', '4'), rows=8, target=3.0)
  figures = decode.measure(case, length=11, peer_python='p', rounds=3, seconds=2.0, threads=2)
  # 10 tokens are drawn in each of 8 texts: the first is given.
  assert (figures['ours'], figures['peer']) == (240, 160)
  assert figures['ratio'] == 1.5 and figures['lowest'] == 1.5 and figures['highest'] == 3
  assert figures['target'] == 3.0


def test_rounds_alternate_after_both_are_warm(sides):
  case = Decoding((), (), rows=1, target=3.0)
  decode.measure(case, length=11, peer_python='p', rounds=2, seconds=2.0, threads=2)
  warm, rounds = sides[1][:4], sides[1][4:]
  assert warm == [*2 * [('ours', 'warm', 1)], *2 * [('peer', 'warm', 1)]]
  assert rounds == 2 * [('ours', 'run', 6), ('peer', 'run', 4)]


def test_both_sides_write_as_many_texts_of_the_same_length(sides):
  case = Decoding(('--config=x',), ('--layers', '4'), rows=8, target=3.0)
  decode.measure(case, length=11, peer_python='p', rounds=1, seconds=1.0, threads=2)
  ours, peer = sides[0]
  assert ours[2:] == ['benchmarks.decode_steps', '--config=x', '--num=8', '--length=11']
  assert peer == [
    *('p', 'benchmarks/peers/torch_gpt.py', 'generate', '--layers', '4'),
    *('--batch-size', '8', '--length', '11', '--context', '11'),
  ]
