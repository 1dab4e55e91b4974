"""Recorded figures hold when they are computed anew; one that was changed does not."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest

from commands import html_report, machine, recorded_results
from commands.compare_results import compare_results
from commands.evaluate_run import Request, evaluate_run
from commands.verify_figures import DO_NOT_HOLD, HOLD, NOT_VERIFIED, same, verify
from configs import gan, mlp
from configs.defaults import samples
from errors import UserError
from tests.conftest import ROOT, environment
from tests.runs import saved_run, small

FD = 'samples/fd_pixels4_32-test'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The folder of an evaluated GAN of two seeds."""
  config = small(gan.get_config())
  config.data.update(split='train[:50]', test_split='test[:40]')
  config.seeds = 2
  config.evaluators.samples = samples(
    dict(name='pixels.BlockMeans', side=4), dict(fd=dict(name='frechet')), samples=32
  )
  folder = saved_run(tmp_path_factory.mktemp('verify') / 'gan', config)
  evaluate_run(Request(folder, f'{folder}/metrics.json'), ['evaluate.py'])
  return folder


@pytest.fixture
def recorded(run):
  with open(f'{run}/metrics.json') as file:
    return json.load(file)


def saved(tmp_path, content, name='metrics.json'):
  (tmp_path / name).write_text(json.dumps(content))
  return str(tmp_path / name)


def test_figures_hold(run, capsys):
  assert verify(f'{run}/metrics.json', []) == HOLD
  printed = capsys.readouterr().out
  assert 'equal bits, for devices' in printed
  # Those of the run, which are means, and those of its lanes.
  figures = json.loads(open(f'{run}/metrics.json').read())['metrics']
  assert f'{3 * len(figures)} of {3 * len(figures)} figures hold' in printed
  assert f'\n{FD} of seed_1 ' in printed and ' NO' not in printed


def test_a_figure_that_was_changed_does_not_hold(recorded, tmp_path, capsys):
  """The last digit counts, of a lane and of an interval; the file lies elsewhere than the run."""
  lane = recorded['lanes'][1]
  lane['metrics'][FD] *= 1 + 1e-12
  low, high = lane['intervals'][FD]
  recorded['lanes'][0]['intervals'][FD] = [low, high]
  assert verify(saved(tmp_path, recorded), []) == DO_NOT_HOLD
  printed = capsys.readouterr().out
  assert f'do not hold: {FD} of seed_0, {FD} of seed_1\n' in printed
  (row,) = [line for line in printed.splitlines() if line.startswith(f'{FD} of seed_1')]
  assert row.split()[-1] == 'NO' and repr(lane['metrics'][FD]) in row


def test_another_device_is_given_a_tolerance(recorded, tmp_path, capsys):
  recorded['made_by']['processor'] = 'an abacus'
  for lane, factor in zip(recorded['lanes'], (1 + 1e-5, 1.5)):
    lane['metrics'][FD] *= factor
  assert verify(saved(tmp_path, recorded), []) == DO_NOT_HOLD
  printed = capsys.readouterr().out
  assert f'do not hold: {FD} of seed_1\n' in printed
  assert 'within 0.001 relative, for these differ: processor an abacus → ' in printed


def test_what_a_tolerance_allows():
  value = [2.0, 0.1, 1.0, 3.0, None]
  assert same(value, value, True)
  assert not same(value, [2.0 + 1e-15, *value[1:]][:4], True)
  assert same(value, [2.0019, 0.10009, 1.0, 3.0019, None], False)
  assert not same(value, [2.0021, *value[1:]], False)
  assert not same(value, [2.0, 0.1002, *value[2:]], False)
  assert not same(value, [2.0, 0.1, 0.99, 3.0, None], False)
  assert not same(value, [None, *value[1:]], False) and same([None] * 5, [None] * 5, False)
  # Near 0 it is the interval that is compared with.
  assert same([1e-6, None, -1.0, 1.0, None], [9e-4, None, -1.0, 1.0, None], False)
  assert not same(value, (), False)


def test_another_checkpoint_is_refused(run, recorded, tmp_path):
  """Its own folder holds another run now, and the one that it names has moved."""
  other = tmp_path / 'run'
  shutil.copytree(run, other)
  meta = other / 'checkpoints/1/meta/metadata'
  description = json.loads(meta.read_text())
  next(iter(description['fingerprint']['variables'].values()))[2] += 1
  meta.write_text(json.dumps(description))
  recorded['made_by']['workdir'] = str(tmp_path / 'gone')
  path = saved(other, recorded)
  with pytest.raises(UserError, match=r'is not the one that .* was computed from'):
    verify(path, [])
  shutil.rmtree(other / 'checkpoints/1')
  with pytest.raises(UserError, match=r'has no checkpoint 1 any more'):
    verify(path, [])
  with pytest.raises(UserError, match=r'gone, and there is no run'):
    verify(saved(tmp_path, recorded), [])


def test_data_that_have_changed_are_refused(recorded, tmp_path):
  recorded['made_by']['provenance']['samples']['data']['reference'] = 'other'
  with pytest.raises(UserError, match=r'has changed \(samples\.data\.reference: other → '):
    verify(saved(tmp_path, recorded), [])


def test_a_file_that_holds_no_figures(tmp_path):
  for content, part in (
    ('{', 'is damaged: it is no JSON'),
    ('{}', 'is damaged'),
    ('3', 'is damaged'),
    ('[3]', 'row 0 is damaged'),
    ('[{"name": "a", "commands": "b"}]', 'row 0 is damaged'),
  ):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(UserError, match=part):
      verify(f'{tmp_path}/x.json', [])
  with pytest.raises(UserError, match='cannot be read'):
    verify(f'{tmp_path}/y.json', [])


def test_wall_times_are_not_verified(tmp_path, capsys):
  config = small(mlp.get_config())
  config.data.test_split = 'test[:20]'
  config.evaluators.speed.calls = 2
  folder = saved_run(tmp_path / 'mlp', config)
  path = f'{folder}/metrics.json'
  evaluate_run(Request(folder, path), ['evaluate.py'])
  assert verify(path, []) == HOLD
  rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('speed/')]
  # Once when it was evaluated, once here.
  assert sum(row.endswith('not verifiable: a wall time') for row in rows) == len(rows) // 2 > 0


def test_a_list_of_results(run, recorded, tmp_path, capsys):
  """One row holds, one was changed by hand, one's run is not at hand."""
  into = str(tmp_path / 'results.json')

  def record(name, content, *commands, **more):
    path = saved(tmp_path, content)
    recorded_results.record_result(path, name, into, commands, **more)

  with pytest.raises(UserError, match='give --command'):
    record('good', recorded)
  record('good', recorded, 'python train.py --config=configs/gan.py', note='small')
  absent = copy.deepcopy(recorded)
  absent['made_by']['fingerprints'] = {'1': 'another'}
  record('absent', absent, 'python train.py --config=configs/vae.py')
  where = [str(run)]
  assert verify(into, where) == HOLD
  printed = capsys.readouterr().out
  assert '2 rows, 1 with their run at hand' in printed
  listed = printed.partition('no run with their fingerprint is at hand:\n')[2]
  assert listed.splitlines() == [
    '  absent (run another)', '    python train.py --config=configs/vae.py',
    '    python evaluate.py',
  ]  # fmt: skip
  # Again, without its command, it keeps that and the note.
  recorded['lanes'][0]['metrics'][FD] += 0.5
  record('good', recorded)
  first = json.loads((tmp_path / 'results.json').read_text())[0]
  assert first['note'] == 'small' and first['commands'][0].endswith('configs/gan.py')
  assert 'tables' not in first and 'tables' not in first['lanes'][0]
  assert verify(into, where) == DO_NOT_HOLD
  assert 'do not hold: good\n' in capsys.readouterr().out
  # A row whose data have changed says nothing of whether its figures hold.
  recorded['made_by']['provenance']['samples']['counts']['samples'] = 3
  record('good', recorded)
  assert verify(into, where) == NOT_VERIFIED
  assert 'the row "good" of' in capsys.readouterr().err
  rows = json.loads((tmp_path / 'results.json').read_text())
  rows[0]['run'] = 'another'
  saved(tmp_path, rows, 'results.json')
  with pytest.raises(UserError, match='is damaged: "run" is not the fingerprint'):
    verify(into, where)


def test_in_which_a_machine_differs():
  one = {'versions': {'jax': '1', 'numpy': '2'}, 'devices': 'a', 'processor': 'b', 'xla_flags': ''}
  assert machine.differences(one, copy.deepcopy(one)) == []
  other = {**one, 'versions': {'jax': '1', 'numpy': '3'}, 'xla_flags': '-x'}
  assert machine.differences(one, other) == ['numpy 2 → 3', 'xla_flags none → -x']
  assert machine.differences(one, {**one, 'threads': 2}) == ['threads none → 2']


@pytest.mark.parametrize(
  'prefix, variable, cores, threads',
  [
    ([], {}, None, None),
    (['taskset', '-c', '0'], {}, 1, 1),
    ([], {'OPENBLAS_NUM_THREADS': '1'}, None, 1),
  ],
)
def test_cores_and_threads_are_those_the_process_may_use(prefix, variable, cores, threads):
  """A product of NumPy's is rounded otherwise with another number of threads."""
  program = (
    'from engine import runtime; runtime.prepare(); import jax; from engine import sharding; '
    'from commands import machine; '
    'm = machine.machine(sharding.make_mesh(lane=1, data=1, fsdp=1, tensor=1)); '
    'print(m["processor"]); print(m["threads"])'
  )
  if prefix and not shutil.which('taskset'):
    pytest.skip('there is no taskset')
  done = subprocess.run(
    [*prefix, sys.executable, '-c', program], cwd=ROOT, env={**environment(), **variable},
    capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  processor, found = done.stdout.splitlines()
  usable = len(os.sched_getaffinity(0))
  assert processor.endswith(f', {cores or usable} cores') and int(found) == (threads or usable)


def test_runs_and_their_report(run, tmp_path, capsys):
  groups = compare_results([run])
  printed = capsys.readouterr().out
  assert f'{FD} ' in printed and '2 seeds (0, 1), step 1' in printed
  html_report.write_report(groups, str(tmp_path / 'x.html'))
  page = (tmp_path / 'x.html').read_text()
  assert 'Nearest training images' in page and 'mnist5k train[:50], 50 images' in page
  assert 'samples and neighbours' in page


@pytest.mark.parametrize(
  'flags, part',
  [
    (['--verify='], '--verify= names no file'),
    (['--verify=x.json', '--workdir=nowhere'], '--workdir has no effect beside --verify'),
    (['--runs=nowhere', '--lane=1'], '--lane has no effect beside --runs'),
    (['--runs=nowhere', '--report=x.pdf'], '--report=x.pdf must end in .html'),
  ],
)
def test_flags_that_exclude_each_other(script, flags, part):
  done = script('evaluate.py', *flags)
  assert done.returncode == 2 and part in done.stderr, done.stderr
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr
