"""How a comparison drives its sides, and what its figure is."""

import io
import itertools
import json
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import compare
from benchmarks.cases import CASES, Case
from benchmarks.peers import protocol
from benchmarks.side import ROOT, Side, SideFailed
from errors import UserError


@pytest.fixture
def sides(monkeypatch) -> tuple[list, list, list]:
  """Stands in for the processes: 3 steps a second for us, 2, 2 and 1 for the peer.

  Returns the commands that were started, which steps each side ran, and the environments.
  """
  commands, calls, environments = [], [], []

  class FakeSide(Side):
    def __init__(self, command, environment):
      environments.append(environment)
      commands.append(command)
      self.ours = command[0] != 'p'
      self.speeds = [3.0, 3.0, 3.0] if self.ours else [2.0, 2.0, 1.0]

    def speed(self, command: str, steps: int) -> float:
      calls.append(('ours' if self.ours else 'peer', command, steps))
      return self.speeds.pop(0) if command == 'run' else self.speeds[0]

    def description(self) -> dict:
      if self.ours:
        return {'device': 'NVIDIA H200', 'version': 'jax 1', 'flops': 6, 'peak': 100.0}
      return {'device': 'NVIDIA H200', 'version': 'torch 2'}

    def close(self) -> None:
      pass

  monkeypatch.setattr(compare, 'Side', FakeSide)
  return commands, calls, environments


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


# --- devices, modes and failures ------------------------------------------------------------------


def test_both_sides_compute_on_the_device_that_is_named(sides):
  case = Case(('--config=a',), ('x.py', 'small'), target=3.0, gpu_target=1.5)
  for device, mode, platform, target in (
    ('cpu', 'eager', 'cpu', 3.0),
    ('gpu', 'graph', 'cuda', 1.5),
  ):
    for seen in sides:
      seen.clear()
    figures = compare.compare(case, 'p', 1, 2.0, 2, device, mode)
    ours, peer = sides[0]
    assert peer == ['p', 'benchmarks/peers/x.py', 'small', '--device', device, '--mode', mode]
    assert ('--config.train.dispatch=1000' in ours) == (device == 'gpu')
    assert sides[2][0]['JAX_PLATFORMS'] == platform and figures['target'] == target


def test_the_mfu_of_both_is_of_the_operations_of_our_step(sides):
  figures = compare.compare(CASES['mlp_32'], 'p', 3, 2.0, 2, 'gpu', 'graph')
  assert figures['mfu'] == {'ours': 6 * 3 / 100, 'peer': 6 * 2 / 100}
  assert '18.0%, 12.0%' in compare.row('mlp_32', figures)
  figures['mfu'] = {'ours': None, 'peer': None}
  assert '–, –' in compare.row('mlp_32', figures)


def table(monkeypatch, capsys, compared, *names, **values):
  """(exit code, what is printed) of the command, with these figures of every case."""
  monkeypatch.setattr(compare, 'compare', compared)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(**values):
    code = compare.main(['compare', *names])
  return code, capsys.readouterr().out


def test_a_side_that_fails_is_in_the_table_and_the_others_go_on(monkeypatch, capsys, tmp_path):
  good = dict(
    ours=3.0, peer=2.0, ratio=1.5, lowest=1.4, highest=1.6, target=1.0,
    mfu={'ours': None, 'peer': None},
    described={'ours': {'version': 'jax 1', 'device': 'cpu'}, 'peer': {'version': 'torch 2'}},
  )  # fmt: skip

  def compared(who):
    def compare_(case, *_):
      if case is CASES['dense_gan_128']:
        raise SideFailed(f'{who}: RuntimeError: no double backward')
      return good

    return compare_

  path = tmp_path / 'figures.json'
  for who, expected in (('peer', 0), ('ours', 1)):
    code, printed = table(
      monkeypatch, capsys, compared(who), 'dense_gan_128', 'mlp_32', json=str(path)
    )
    assert code == expected
    failed, fine = [
      line for line in printed.splitlines() if line.startswith(('dense_gan_128', 'mlp_32'))
    ]
    assert f'{who}: RuntimeError: no double backward' in failed and '1.50 (1.40–1.60)' in fine
    assert 'jax 1: cpu' in printed and 'torch 2' in printed
  written = json.loads(path.read_text())
  assert written['mlp_32']['ratio'] == 1.5 and 'no double' in written['dense_gan_128']['failed']


def test_cases_are_of_their_device_and_mode():
  every = compare.chosen([], 'cpu', 'eager')
  assert 'gpt2_124m' not in every and {'decode_small_1', 'rnn_tanh'} <= {*every}
  on_gpu = compare.chosen([], 'gpu', 'graph')
  assert {'gpt2_124m', 'gpt_shakespeare'} <= {*on_gpu} and 'decode_small_1' not in on_gpu
  assert compare.chosen(['gpt2_124m'], 'cpu', 'compile') == ['gpt2_124m']
  with pytest.raises(UserError, match=r'no case "mlp_3".*did you mean.*mlp_32'):
    compare.chosen(['mlp_3'], 'cpu', 'eager')
  with pytest.raises(UserError, match=r'decode_small_1 generates .* leave --mode=graph at eager'):
    compare.chosen(['decode_small_1'], 'gpu', 'graph')


def test_a_device_that_a_side_does_not_find_is_refused(monkeypatch):
  with pytest.raises(UserError, match=r'--mode=graph captures .* give --device=gpu too'):
    compare.check_device('cpu', 'graph', sys.executable)
  compare.check_device('cpu', 'compile', 'no-such-python')
  monkeypatch.setattr(compare, '_GPU_OF_JAX', 'print("NVIDIA H200")')
  monkeypatch.setattr(compare, '_GPU_OF_TORCH', 'raise RuntimeError')
  with pytest.raises(UserError, match=r'here jax finds NVIDIA H200, torch finds none; .*--peer_py'):
    compare.check_device('gpu', 'graph', sys.executable)
  with pytest.raises(UserError, match=r'torch finds none'):
    compare.check_device('gpu', 'graph', '/no/such/python')
  monkeypatch.setattr(compare, '_GPU_OF_TORCH', 'print("NVIDIA H200")')
  compare.check_device('gpu', 'graph', sys.executable)


def test_steps_that_fail_are_answered_with_their_error(capsys):
  def run(steps):
    if steps > 1:
      raise RuntimeError('no double backward\nand more')
    return {'loss': 0.5}

  out = io.StringIO()
  lines = ['warm 1', 'run 2', 'describe', 'fly', 'quit', 'run 1']
  protocol.serve(run, lines, out, describe=lambda: {'device': 'a card'})
  first, failed, described, unknown = map(json.loads, out.getvalue().splitlines())
  assert first['steps'] == 1 and first['loss'] == 0.5
  assert failed == {'error': 'RuntimeError: no double backward'}
  assert described == {'device': 'a card'} and unknown['error'].startswith('expected "warm N"')
  assert 'Traceback' in capsys.readouterr().err


def test_a_process_that_answers_with_an_error_or_ends_has_failed():
  code = (
    'import sys; sys.path.insert(0, "benchmarks/peers"); import protocol\n'
    'def run(steps): return {"loss": 1 / (steps - 2)} if steps < 3 else sys.exit(3)\n'
    'protocol.serve(run)'
  )
  side = Side([sys.executable, '-c', code], {}, ROOT)
  assert side.speed('warm', 1) > 0
  with pytest.raises(SideFailed, match='ZeroDivisionError: division by zero'):
    side.speed('run', 2)
  assert side.description() == {}
  for _ in range(2):
    with pytest.raises(SideFailed, match='process has ended'):
      side.speed('run', 3)
  side.close()
