"""Runs that are killed end as others do; and a run that does not is a fault."""

import random
import re
import signal
import subprocess
import sys

import pytest

from benchmarks import faults, killed_runs
from benchmarks.killed_runs import Attempt, Kill, Verdict, differing
from tests.conftest import ROOT, environment


@pytest.mark.slow
@pytest.mark.parametrize('family', ['gan', 'processes'])
def test_some_kills_change_no_bit(family):
  """Hundreds of them take an hour: see docs/results.md."""
  words = ['-m', 'benchmarks.faults', '--kills=3', '--seed=2', f'--families={family}']
  done = subprocess.run(
    [sys.executable, *words],
    cwd=ROOT,
    env=environment(),
    capture_output=True,
    text=True,
    timeout=1200,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert re.search(r'^3 kills, \d+ runs, 0 with faults', done.stdout, re.M), done.stdout


def test_a_seed_draws_the_same_kills():
  one, same, other = (
    killed_runs.draw_attempts(random.Random(seed), 200, processes=2) for seed in (1, 1, 2)
  )
  assert one == same != other
  assert {attempt.kind for attempt in one} == {'KILL', 'TERM'}
  assert {attempt.moment for attempt in one} == {*killed_runs.MOMENTS}
  assert {attempt.process for attempt in one} == {0, 1}


def test_one_other_bit_is_a_fault():
  state = {'a': '1', 'b': '2'}
  assert differing(state, dict(state)) == []
  assert differing(state, {'a': '1', 'b': '3'}) == ['1 of 2 leaves differ, the first is b']
  assert differing(state, {'a': '1'}) == differing(state, {**state, 'b': ''})
  assert differing(state, {**state, 'c': '1'}) == ['1 of 2 leaves differ, the first is c']
  assert differing(state, {}) == ['its last checkpoint cannot be read']


KILLED, TERMINATED = (Kill(kind, 'training', 'training') for kind in ('KILL', 'TERM'))


@pytest.mark.parametrize(
  ('kill', 'codes', 'right'),
  [
    (KILLED, [-9], True),
    (KILLED, [143], False),
    (TERMINATED, [143], True),
    (TERMINATED, [-signal.SIGTERM], True),
    (TERMINATED, [1], False),
    (TERMINATED, [74], False),
    # The last step was saved already.
    (TERMINATED, [0], True),
    (None, [0], True),
    (None, [1], False),
    (KILLED, [-9, 75], True),
    (KILLED, [-9, 1], False),
    (KILLED, [-9, 2], False),
    (TERMINATED, [143, 143], True),
  ],
)
def test_an_exit_code_that_a_kill_does_not_explain_is_a_fault(kill, codes, right):
  assert (killed_runs.of_codes(kill, 0, codes) == []) == right


def test_a_log_with_a_gap_or_a_repetition_is_a_fault(tmp_path):
  def faults_of(steps):
    (tmp_path / 'metrics.jsonl').write_text(''.join(f'{{"step": {step}}}\n' for step in steps))
    return killed_runs.of_log(tmp_path)

  every = [*range(2, killed_runs.STEPS + 1, 2)]
  assert faults_of(every) == faults_of(sorted({*every, 17})) == []
  assert faults_of(every[:-1]) and faults_of([*every[:4], *every[3:]]) and faults_of(every[::-1])


CHILDREN = """
import pathlib, sys
from benchmarks import faults, killed_runs

def leave():
  print('said')
  sys.exit(7)

def fail():
  raise KeyError('lost')

log = pathlib.Path(sys.argv[1])
print([killed_runs.end_of(killed_runs.fork(call, log)) for call in (leave, fail, lambda: None)])
"""


def test_a_child_ends_with_its_own_code(tmp_path):
  # In a process without threads, which a fork would not take along.
  log = tmp_path / 'log'
  done = subprocess.run(
    [sys.executable, '-c', CHILDREN, str(log)], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout == '[7, 1, 0]\n', done.stderr
  assert 'said' in log.read_text() and "KeyError: 'lost'" in log.read_text()


def test_the_table_counts_what_was_hit():
  verdicts = [
    Verdict('gan', (KILLED, Kill('TERM', 'save', 'evaluation')), ()),
    Verdict('vae', (TERMINATED,), ('1 of 2 leaves differ, the first is b',)),
  ]
  rows = [row.split(' | ') for row in faults.table(verdicts).splitlines()]
  assert rows[0][-1] == 'equal states |'
  assert rows[2:] == [
    ['| gan', '1', '2', '1', '1', '0', '1', '0', '1', '1 of 1 |'],
    ['| vae', '1', '1', '0', '1', '0', '1', '0', '0', '0 of 1 |'],
    ['| all', '2', '3', '1', '2', '0', '2', '0', '1', '1 of 2 |'],
  ]


def test_a_moment_is_that_of_the_run(tmp_path):
  """An unfinished checkpoint is a save, whatever else goes on."""
  watch = killed_runs.Watch(killed_runs.Started([], -1, []), tmp_path, killed_runs.Times())
  at_first = Attempt('KILL', 'save', 0.9, 0.0, 0)
  assert watch.moment() == 'start' and not watch.has_come(at_first)
  for event, moment in (
    ('step 2', 'training'), ('evaluate', 'evaluation'), ('evaluated', 'training'),
  ):  # fmt: skip
    watch._take(event)
    assert watch.moment() == moment
  (tmp_path / 'checkpoints' / '4.orbax-checkpoint-tmp').mkdir(parents=True)
  assert watch.moment() == 'save'
  watch._take('save')
  assert not watch.has_come(at_first), 'it is the second one that is meant'
  watch._take('save')
  assert watch.has_come(at_first)
