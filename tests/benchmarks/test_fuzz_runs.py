"""Damaged runs and data end in a sentence or a recovery; and what does not is noticed."""

import random

import pytest

from benchmarks import damages, fuzz_runs
from benchmarks.small_runs import FAMILIES, Done, Expected, clear, opened, run_here

CASES = 12


@pytest.fixture(scope='module')
def place():
  with opened() as found:
    yield found


def test_a_sample_of_damages_ends_well(place):
  """The whole of them takes minutes: python -m benchmarks.fuzz_runs."""
  said: list[str] = []
  verdicts = fuzz_runs.try_cases(place, 7, range(CASES), ['classifier'], said.append)
  assert said == [] and len(verdicts) == CASES
  # Nor were they all without effect, or all refused.
  outcomes = {verdict.outcome for verdict in verdicts}
  assert outcomes == {'unchanged', 'recovered', 'refused'}, outcomes


def test_a_seed_draws_the_same_cases():
  for number in range(20):
    one, same = (fuzz_runs.draw_case(1, number, [*FAMILIES]) for _ in range(2))
    assert one._replace(rng=None) == same._replace(rng=None)
    assert one.rng.random() == same.rng.random()
  drawn = {fuzz_runs.draw_case(1, number, [*FAMILIES])[1:3] for number in range(600)}
  assert len(drawn) == len(FAMILIES) * len({*fuzz_runs.COMMANDS})


@pytest.mark.parametrize('name', [*damages.OF_FILES, *damages.OF_JSON])
def test_a_damage_changes_the_file(tmp_path, name):
  damage = {**damages.OF_FILES, **damages.OF_JSON}[name]
  for seed in range(10):
    path = tmp_path / f'{seed}.json'
    path.write_text('{"a": [1, {"b": 2.5}], "c": "text"}')
    before = path.stat().st_mtime_ns, path.read_bytes()
    damage(random.Random(seed), path)
    after = (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else None
    assert after is None or (
      after[0] != before[0] and (name == 'in_the_future') == (after[1] == before[1])
    )


@pytest.mark.parametrize(
  ('done', 'fault'),
  [
    (Done(1, '', 'Traceback …\nKeyError: 1'), 'traceback: KeyError: 1'),
    (Done(0, 'Traceback (most recent call last):\n'), 'a traceback was printed'),
    (Done(2, 'error: one\nerror: two\n'), '2 sentences of error with exit code 2'),
    (Done(2, ''), '0 sentences of error with exit code 2'),
    (Done(3, 'error: one'), 'exit code 3'),
  ],
)
def test_a_bad_end_is_a_fault(done, fault):
  assert fuzz_runs.of_end(done) == [fault]
  assert fuzz_runs.of_end(Done(2, 'warning: x\nerror: one\n')) == []


def case(command, *more):
  return fuzz_runs.Case(0, 'classifier', command, more, False, (), random.Random(0))


def test_a_lost_file_is_a_fault():
  before = {'run/checkpoints/8/a': '1', 'run/checkpoints/12/a': '2', 'run/metrics.jsonl': '3'}
  found = [fuzz_runs.Damaged('…', ('checkpoints/12/b',))]
  aside = {'run/checkpoints/8/a': '1', 'run/damaged_checkpoints/12/a': '2'}
  assert fuzz_runs.of_files(case('train'), found, before, aside) == []
  assert fuzz_runs.of_files(
    case('train'), found, before, {**aside, 'run/checkpoints/8/a': 'x'}
  ) == ['run/checkpoints/8/a changed']
  lost = {'run/checkpoints/8/a': '1'}
  assert fuzz_runs.of_files(case('train'), found, before, lost) == ['run/checkpoints/12/a is gone']
  # What only reads changes nothing.
  assert fuzz_runs.of_files(case('sample'), [], before, before) == []
  assert fuzz_runs.of_files(case('sample'), [], before, {**before, 'run/new': ''}) == [
    'run/new is new'
  ]


def test_another_product_is_a_fault(place):
  clear(place.case)
  clear(place.out)
  (place.out / 'sample.png').write_text('of 8')
  for step in (8, 12):
    (place.case / 'run' / 'checkpoints' / str(step)).mkdir(parents=True)
  of_8 = fuzz_runs.product(place, 'sample')
  expected = Expected(
    None, {('sample', 8): of_8, ('sample', 12): 'other', ('sample', 'best'): of_8}
  )

  def faults(output, *more):
    return fuzz_runs.of_product(case('sample', *more), [], Done(0, output), place, expected)

  assert faults('') == ['silently took checkpoint 8, not [12]']
  assert faults('warning: checkpoint 12 is damaged') == []
  assert faults('', '--checkpoint=8') == faults('', '--checkpoint=best') == []
  assert faults('', '--checkpoint=12') == ['asked for 12, took [8]']
  other = expected._replace(products={**expected.products, ('sample', 8): 'changed'})
  assert fuzz_runs.of_product(case('sample'), [], Done(0, ''), place, other) == [
    'what it made is none of an undamaged run'
  ]
  refused = fuzz_runs.of_product(case('sample'), [], Done(2, ''), place, expected)
  assert refused and refused[0].startswith('refused, and left')


def test_scripts_leave_no_flags_behind(place):
  for _ in range(2):
    done = run_here(['sample.py', f'--workdir={place.root}/none'])
    assert done.code == 2 and 'is no run' in done.output and not done.trace
