"""Whatever stands in a config, a run starts or one sentence names the key; a sample of it."""

import math

import pytest

from benchmarks import fuzz_configs
from benchmarks.fuzz_configs import GONE, Added, Mutant
from errors import UserError

SEED = 14
# Of each family one, and the quick ones to trace.
SAMPLE = ('tabular', 'mlp', 'cnn_binary', 'gan_plain', 'cvae', 'vqvae', 'bert_classify')


def test_a_sample_is_answered_rightly():
  lines: list[str] = []
  answers = fuzz_configs.run(SAMPLE, SEED, 80, seconds=300, limit=60, say=lines.append)
  assert len(answers) == 80
  assert len({one.mutant.config for one in answers}) > 1
  assert all(one.right for one in answers), '\n'.join(lines)


def test_mutants_follow_from_the_seed():
  plain = {'a': {'train': {'steps': 3, 'word': 'x'}, 'list': (1, 2)}, 'b': {'seeds': 1}}
  first = fuzz_configs.mutants(plain, 1, 300)
  assert repr(first) == repr(fuzz_configs.mutants(plain, 1, 300))
  assert repr(first) != repr(fuzz_configs.mutants(plain, 2, 300))
  assert len(first) == 300
  assert {mutant.kind for mutant in first} > {'missing', 'huge', 'not finite', 'numpy', 'bool'}


@pytest.fixture
def started(monkeypatch):
  """`started(raised)` makes every start of a run call `raised`."""

  def replace(raised):
    from engine import preflight

    monkeypatch.setattr(preflight, 'preflight', lambda config, workdir: raised(config))

  return replace


def answer(value, place='train.steps', limit=10):
  config = fuzz_configs.load('mlp')
  mutant = Mutant('mlp', 'any', place, value)
  return fuzz_configs.answer(config, mutant, '/nowhere', limit).verdict


def raising(error):
  def start(config):
    raise error

  return start


@pytest.mark.parametrize(
  ('error', 'verdict'),
  [
    (UserError('config.train.steps=3 is wrong'), 'refused'),
    (UserError('config.train has no "steps"'), 'refused'),
    (UserError('the steps are wrong'), 'UserError without the key'),
    (UserError('config.train.steps_more is wrong'), 'UserError without the key'),
    (TypeError('no'), 'TypeError at tests/benchmarks/test_fuzz_configs.py'),
    (MemoryError(), 'MemoryError at tests/benchmarks/test_fuzz_configs.py'),
  ],
)
def test_what_counts_as_a_right_answer(started, error, verdict):
  started(raising(error))
  assert answer(3).partition(':')[0] == verdict


def test_what_takes_too_long_is_wrong(started):
  def forever(config):
    while True:
      pass

  started(forever)
  assert answer(3, limit=1).startswith('over 1 s')


@pytest.mark.parametrize(
  ('place', 'value', 'verdict'),
  [
    ('train.steps', 7, 'accepted'),
    ('train.steps', math.nan, 'accepted a number that is not finite'),
    ('train.steps', (3, -math.inf), 'accepted a number that is not finite'),
    ('train.steps', -7, 'accepted a negative number'),
    ('mesh.data', -1, 'accepted'),  # that is declared
    ('mesh.data', -2, 'accepted a negative number'),
    ('train.steps', {3}, 'TypeError at no line of ours'),  # no JSON
  ],
)
def test_what_must_not_be_accepted(started, place, value, verdict):
  started(lambda config: None)
  assert answer(value, place) == verdict


def test_a_key_is_taken_away_or_added(started):
  seen = []
  started(lambda config: seen.append(config))
  assert answer(GONE) == answer(Added('more', 3)) == 'accepted'
  assert 'steps' not in seen[0].train
  assert seen[1].train.more == 3 and 'steps' in seen[1].train
