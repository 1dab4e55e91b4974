"""Training comes to what is recorded in tests/golden; see tests/golden/record.py to renew it."""

import pytest

from tests.golden import record, short_runs, tiny, values
from tests.golden.values import Tolerance
from tests.marks import slow_where

pytestmark = pytest.mark.cpu('golden values hold to the rounding of a CPU')
FAMILIES = values.families()
RECORDED = {family: values.read(family) for family in FAMILIES}
DRAWN = [(family, case) for family in FAMILIES for case in RECORDED[family]['one_key']]


def assert_same(family, recorded, now):
  lines, _ = values.compare(recorded, now, values.tolerance_of(RECORDED[family]))
  assert not lines, '\n'.join([f'{len(lines)} golden values differ:', *lines,
                               values.how_to_renew(family)])  # fmt: skip


def assert_same_case(family, case, cases, outcome):
  recorded, now = ({case: entry} for entry in (cases[case], outcome._asdict()))
  assert_same(family, values.flat_cases(recorded), values.flat_cases(now))


@pytest.mark.parametrize(('name', 'data'), tiny.marked_cases())
def test_five_steps_and_an_evaluation(name, data):
  """Of the steps that tests/test_configs.py takes."""
  family = values.family_of(tiny.config_of(name, data).objective.name)
  cases = RECORDED[family]['steps'] if family in RECORDED else {}
  assert f'{name}:{data}' in cases, f'{name}:{data} is not recorded; {values.how_to_renew(family)}'
  assert_same_case(family, f'{name}:{data}', cases, tiny.five_steps(name, data))


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'case'), DRAWN)
def test_with_all_keys_one(family, case):
  """What is computed from the noise is the same, whatever streams the keys are folded from."""
  outcome = tiny.five_steps_of_one_key(*case.split(':'))
  assert_same_case(family, case, RECORDED[family]['one_key'], outcome)


@pytest.mark.parametrize(
  'family', slow_where(lambda family: family in ('gan', 'masked_lm', 'vqvae'), FAMILIES)
)
def test_a_short_run(family):
  recorded = RECORDED[family]['run']['metrics']
  now = short_runs.last_metrics(family)
  assert_same(family, values.flat({'run': recorded}), values.flat({'run': now}))


@pytest.mark.parametrize('family', FAMILIES)
def test_what_a_file_says(family):
  recorded = RECORDED[family]
  known = {':'.join(case) for case in tiny.cases()}
  assert recorded['steps'].keys() <= known, 'a config is gone; record the family anew'
  tolerance = Tolerance(**recorded['tolerance'])
  assert 0 < tolerance.first_step <= tolerance.later <= tolerance.run <= 0.1
  assert len(tolerance.reason.split()) > 5 and all(len(why.split()) > 2 for why in recorded['why'])


TOLERANCE = Tolerance(
  first_step=1e-5, later=1e-2, run=0.1, least=1e-3, exceptions={'iwae': 0.02}, reason=''
)


@pytest.mark.parametrize(
  ('name', 'old', 'new', 'same'),
  [
    ('vae:x/metrics/loss[0]', 2.0, 2.00001, True),
    ('vae:x/metrics/loss[0]', 2.0, 2.0001, False),
    ('vae:x/metrics/loss[4]', 2.0, 1.99, True),
    ('vae:x/metrics/loss[4]', 2.0, 1.97, False),
    ('iwae:x/metrics/loss[4]', 2.0, 1.97, True),
    ('vae:x/evaluation/loss', -2.0, -2.03, False),
    ('vae:x/evaluation/loss', 1e-9, 9e-6, True),
    ('run/eval/loss', 2.0, 2.1, True),
    ('run/eval/loss', 2.0, float('nan'), False),
  ],
)
def test_how_far_a_value_may_be(name, old, new, same):
  lines, farthest = values.compare({name: old}, {name: new}, TOLERANCE)
  assert (not lines) is same and (farthest <= 1) is same


def test_a_name_on_one_side_only():
  lines, _ = values.compare({'a': 1.0, 'b': 1.0}, {'b': 1.0, 'c': 1.0}, TOLERANCE)
  assert lines == ['c is new', 'a is gone']


def test_which_values_are_drawn():
  entry = {
    'metrics': {'loss': [1.0, 2.0, 3.0], 'rate': [1.0, 1.0, 1.0]},
    'evaluation': {'loss': 1.0, 'mse': 1.0},
    'drawn': {'metrics': {'loss': 1}, 'evaluation': ['mse']},
  }
  drawn = {'x:y/metrics/loss[1]', 'x:y/metrics/loss[2]', 'x:y/evaluation/mse'}
  assert values.drawn_names({'x:y': entry}) == drawn


def test_what_is_written_is_read_again(tmp_path, monkeypatch):
  monkeypatch.setattr(values, 'FOLDER', tmp_path)
  recorded = {'why': ['a [b, 1] c.'], 'steps': {'x:y': {'metrics': {'loss': [0.1, -2e-07]}}}}
  values.write('vae', recorded)
  assert values.read('vae') == recorded and values.families() == ['vae']
  assert '"loss": [0.1, -2e-07]' in (tmp_path / 'vae.json').read_text()


@pytest.mark.parametrize(
  ('arguments', 'part'),
  [
    (['--family=vae'], 'one sentence that says why'),
    (['--family=vae', '--why=because'], 'one sentence that says why'),
    (['--family=vae', '--why=It is so now.', '--reason=rounding'], 'go together'),
    (['--family=diffusion', '--why=It is so now.'], 'has no values yet'),
  ],
)
def test_a_recording_needs_its_sentences(arguments, part, capsys):
  with pytest.raises(SystemExit):
    record.main(arguments)
  assert part in capsys.readouterr().err


def test_the_message_says_how_to_renew():
  with pytest.raises(
    AssertionError, match=r'says why: python -m tests\.golden\.record --family=vae'
  ):
    assert_same('vae', {'evaluation/elbo': 1.0}, {'evaluation/elbo': 2.0})


def test_another_version_of_jax_may_be_farther_off_after_the_first_step():
  same, other = (TOLERANCE.for_version('0.10.2', now) for now in ('0.10.2', '0.11.0'))
  assert same == TOLERANCE
  assert other.allowed('gan:mnist5k/metrics/loss[0]') == same.allowed('gan:mnist5k/metrics/loss[0]')
  for name in ('gan:mnist5k/metrics/loss[3]', 'iwae:mnist5k/evaluation/kl', 'run/loss'):
    assert other.allowed(name) == pytest.approx(10 * same.allowed(name))
