"""Verdicts on figures, images and batches that are written by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.spec import InputColumn, Spec
from engine import doctor
from engine.doctor import Logged, Sampled, Spread, Stop
from objectives.base import Contest, Player

CONFIG = {
  'modules': {'model': {'normalise': False}},
  'optimizer': {
    'generator': {'learning_rate': 3e-4, 'clip': 0.0},
    'discriminator': {'learning_rate': 3e-4, 'clip': 0.0},
  },
  'objective': {'penalties': {'r1': 0.0}, 'n_critic': 1},
  'data': {'name': 'csv:a.csv', 'table': {'ignore': ('id',)}},
  'train': {'precision': 'float32'},
}
COLUMNS = (InputColumn('age'), InputColumn('city', ('Bern', 'Rome')))
SPEC = Spec('csv:a.csv', 'train', 9, {'inputs': ((3,), 'float32')}, 2, 'x', (), '', COLUMNS)
CONTEST = Contest('discriminator', 'generator', 1.4, ('real_logit', 'fake_logit'))
REMEDIES = {'objective.penalties.r1': 1.0, 'objective.elsewhere': 3}
RANDOM = np.random.default_rng(0)


# --- the data


def batch(**changes):
  values = {'inputs': np.ones((4, 3), np.float32), 'target': np.zeros(4, np.float32)}
  for place, value in changes.items():
    feature, *at = place.split('_')
    values[feature][tuple(map(int, at))] = value
  return {**values, 'index': np.array([7, 3, 5, 1]), 'label': np.array([0, 1, 0, 1])}


@pytest.mark.parametrize(
  ('changes', 'column', 'examples'),
  [
    (dict(inputs_0_0=np.nan, inputs_2_0=-np.inf), 'the column "age"', (5, 7)),
    (dict(inputs_1_2=np.inf, inputs_0_0=1e9), 'the column "city" (Rome)', (3,)),
    (dict(target_3=np.nan), 'the target', (1,)),
    (dict(inputs_0_0=-1e5), 'the column "age"', (7,)),
    (dict(target_1=2e4), 'the target', (3,)),
  ],
)
def test_columns_and_examples_are_named(changes, column, examples):
  first = doctor.suspects(batch(**changes), SPEC, CONFIG)[0]
  assert (first.column, first.examples) == (column, examples)


def test_what_is_no_suspect():
  assert doctor.suspects(batch(inputs_0_0=-9e3, target_1=9e3), SPEC, CONFIG) == []
  images = {'image': np.full((2, 4, 4, 1), 255, np.uint8), 'index': np.arange(2)}
  assert doctor.suspects(images, SPEC, CONFIG) == []


def test_a_model_that_standardises_its_inputs_bears_any_scale_but_that_of_squares():
  held = {**CONFIG, 'modules': {'model': {'normalise': True}}}
  assert doctor.suspects(batch(inputs_0_0=1e9), SPEC, held) == []
  assert doctor.suspects(batch(inputs_0_0=1e30), SPEC, held)
  assert doctor.suspects(batch(target_0=1e9), SPEC, held)  # a target is not standardised


def test_the_advice_on_columns_of_tables():
  _, _, advice = doctor.of_data(doctor.suspects(batch(inputs_0_0=1e9), SPEC, CONFIG), SPEC, CONFIG)
  assert advice.startswith('try --config.modules.model.normalise=True, or bring the column "age"')
  assert advice.endswith('leave the column out with --config.data.table.ignore=id,age')
  other = SPEC._replace(name='diabetes', input_columns=())
  config = {**CONFIG, 'data': {'name': 'diabetes'}, 'modules': {'model': {}}}
  seen, _, advice = doctor.of_data(
    doctor.suspects(batch(inputs_0_0=1e9), other, config), other, config
  )
  assert seen.startswith('column 0 of the inputs is 1e+09 in example 7 of its batch of diabetes')
  assert '--config' not in advice


# --- not finite


def player(name, **options):
  return Player(name, (name,), None, **options)


PLAYERS = (player('discriminator'), player('generator'))


def stop(step, named, loss=np.nan, norms=(), **rates):
  before = [{'generator/gradient_norm': (norm, 1.0)} for norm in norms]
  values = {f'{named}/loss': loss, **{f'{k}/learning_rate': v for k, v in rates.items()}}
  return Stop(step, named, values, before, '')


@pytest.mark.parametrize(
  ('step', 'named', 'loss', 'culprit'),
  [
    (5, 'generator', np.nan, 'discriminator'),
    (5, 'discriminator', np.inf, 'generator'),
    (1, 'generator', np.nan, 'discriminator'),
    (5, 'generator', 1.0, 'generator'),  # the loss is finite: its own gradient is not
  ],
)
def test_the_player_that_moved_last_before_the_loss(step, named, loss, culprit):
  found = doctor.not_finite(stop(step, named, loss), [batch()], {}, SPEC, PLAYERS, CONFIG)
  assert f'updates of "{culprit}" that are too large' in found.cause
  assert found.advice.startswith(f'try --config.optimizer.{culprit}.learning_rate=3e-05, then ')


def test_a_player_that_rested_is_not_blamed():
  players = (*PLAYERS[:1], player('penalty', every=4, optimizer='discriminator'), PLAYERS[1])
  for step, culprit in ((5, 'penalty'), (6, 'discriminator')):
    found = doctor.not_finite(stop(step, 'generator'), [batch()], {}, SPEC, players, CONFIG)
    assert f'updates of "{culprit}"' in found.cause
    assert '--config.optimizer.discriminator.learning_rate' in found.advice


def test_nobody_is_blamed_before_any_update():
  found = doctor.not_finite(stop(1, 'discriminator'), [batch()], {}, SPEC, PLAYERS, CONFIG)
  assert 'at their first parameters' in found.cause and '--config' not in found.advice


def test_one_exceptional_gradient_is_clipped_first():
  grown = doctor.not_finite(
    stop(9, 'discriminator', norms=[1, 9, 99, 999, 9999, 99999]), [], {}, SPEC, PLAYERS, CONFIG
  )
  assert grown.advice.index('learning_rate') < grown.advice.index('clip')
  assert 'from a median of 99 over 5 steps to 1e+05' in grown.seen
  jumped = doctor.not_finite(
    stop(9, 'discriminator', norms=[1, 2, 1, 2, 1, 1e6]), [], {}, SPEC, PLAYERS, CONFIG
  )
  assert 'one exceptional gradient of "generator"' in jumped.cause
  assert jumped.advice.index('clip') < jumped.advice.index('learning_rate')


def test_the_data_of_the_step_before_are_looked_at_too():
  broken = [batch(), batch(inputs_0_0=np.nan)]
  found = doctor.not_finite(stop(5, 'generator'), broken, {}, SPEC, PLAYERS, CONFIG)
  assert 'the data' in found.cause


# --- samples


def images(number, modes=None, noise=0.0):
  kinds = RANDOM.random((modes or number, 6, 6, 1))
  picked = kinds[np.arange(number) % len(kinds)]
  return picked + noise * RANDOM.standard_normal(picked.shape)


def test_the_spread_of_images():
  real = images(64)
  assert 0.9 < doctor.spread(images(64), real).ratio < 1.1
  one = doctor.spread(images(64, modes=1, noise=1e-3), real)
  assert one.ratio < 0.01 and one.duplicates == 1
  # As wide as real ones, and few of them.
  few = doctor.spread(images(64, modes=8, noise=1e-3), real)
  assert few.ratio > 0.5 and few.duplicates == 1
  assert doctor.spread(images(64), real).duplicates == 0
  large = images(16).repeat(60, axis=1).repeat(60, axis=2)
  assert 0.9 < doctor.spread(large[:, ::-1], large).ratio < 1.1
  # What cannot be told: nan, too few, real ones that are all the same.
  assert doctor.spread(np.full((64, 6, 6, 1), np.nan), real) is None
  assert doctor.spread(images(4), real) is None
  assert doctor.spread(images(64), images(64, modes=1)) is None


def collapse(drawn, evaluated=(), classes=10, contest=CONTEST):
  return doctor.collapse(drawn, evaluated, classes, contest, REMEDIES, CONFIG)


def test_two_pictures_in_a_row_are_a_collapse_and_one_is_not():
  wide, none = Spread(0.8, 0.0, 64), Spread(0.1, 0.0, 64)
  assert collapse([Sampled(600, none)]) is None
  assert collapse([Sampled(600, none), Sampled(700, wide)]) is None
  assert collapse([Sampled(100, none), Sampled(600, none)]) is None  # too early
  found = collapse([Sampled(600, none), Sampled(700, none)])
  assert found.step == 700 and 'by 0.10 of' in found.seen and 'mode collapse' in found.cause
  # Of the remedies those that the config has.
  assert found.advice == (
    'try --config.objective.penalties.r1=1.0, then '
    '--config.optimizer.discriminator.learning_rate=0.0001'
  )
  copies = Spread(0.9, 0.7, 64)
  assert '70% of the samples' in collapse([Sampled(600, copies), Sampled(700, copies)]).seen


@pytest.mark.parametrize(
  ('figures', 'collapsed'),
  [
    ({'samples/duplicates_x_1k-test': 0.95}, True),
    ({'samples/duplicates_x_1k-test': 0.6}, False),
    ({'samples/classes_x_1k-test': 2.0}, True),
    ({'samples/classes_x_1k-test': 9.0}, False),
    ({'samples/recall_x_1k-test': 0.0}, False),  # so is that of every young GAN
  ],
)
def test_figures_of_evaluators(figures, collapsed):
  evaluated = [Sampled(600, None, figures), Sampled(900, None, figures)]
  found = collapse([], evaluated)
  assert (found is not None) == collapsed
  if found:
    assert next(iter(figures)) in found.seen
  assert doctor.tells_of_copies(figures) == ('recall' not in next(iter(figures)))


def test_without_a_contest_the_player_is_slowed():
  none = Spread(0.1, 1.0, 64)
  found = collapse([Sampled(600, none), Sampled(700, none)], contest=None)
  assert 'do not depend on the noise' in found.cause
  assert '--config.optimizer.generator.learning_rate=0.0001' in found.advice


# --- players


def logged(losses, norms=None, every=100, first=500):
  norms = norms or [1.0] * len(losses)
  return [
    Logged(
      first + every * i,
      {
        'discriminator/loss': loss,
        'discriminator/real_logit': 9.0,
        'discriminator/fake_logit': -8.0,
        'generator/gradient_norm': norm,
      },
    )
    for i, (loss, norm) in enumerate(zip(losses, norms))
  ]


def winner(history, largest=1.0, contest=CONTEST, config=CONFIG):
  return doctor.winner(history, largest, contest, REMEDIES, config)


def test_a_loss_next_to_none_for_long_enough():
  found = winner(logged([1.0, *[0.01] * 5]))
  assert found.seen.startswith('since step 600 "discriminator" has won over "generator": its loss')
  assert '9 of real and -8 of generated' in found.seen
  assert found.advice.startswith('try --config.objective.penalties.r1=1.0, then ')


@pytest.mark.parametrize(
  'history',
  [
    logged([0.01] * 4),  # too few
    logged([*[0.01] * 5, 0.5]),  # over again
    logged([*[0.01] * 3, 0.5, *[0.01] * 3]),
    logged([0.01] * 9, every=1),  # nine steps are nothing
    logged([0.01] * 5, every=80, first=100),  # at first every discriminator is ahead
    logged([0.05] * 9),
    [],
  ],
)
def test_who_has_not_won(history):
  assert winner(history) is None


def test_a_loss_without_a_bound_tells_nothing_and_a_vanished_gradient_does():
  """That of a Wasserstein critic falls below 0, with its generator learning all the while."""
  critic = CONTEST._replace(chance_loss=0.0)
  assert winner(logged([-50.0] * 9), contest=critic) is None
  assert winner(logged([-50.0] * 9, norms=[1e-6] * 9), contest=critic) is not None
  assert winner(logged([0.5] * 9, norms=[1e-6] * 9)) is not None


def test_a_generator_that_may_not_move():
  still = {'generator': {'learning_rate': 0.0}, 'discriminator': {'learning_rate': 2e-4}}
  found = winner(logged([0.01] * 9), config={**CONFIG, 'optimizer': still})
  assert 'its learning rate is 0' in found.cause
  assert found.advice == 'try --config.optimizer.generator.learning_rate=0.0002'


def test_nobody_wins_without_a_contest():
  assert winner(logged([0.01] * 9), contest=None) is None


def test_flags_are_those_of_options_that_the_config_has():
  place = SimpleNamespace(r1='objective.penalties.r1', clip='optimizer.generator.clip')
  remedies = {place.r1: 0.0, 'objective.other': 1, place.clip: 1.0, 'optimizer.x.clip': 1.0}
  assert doctor.flags(CONFIG, remedies) == ['--config.optimizer.generator.clip=1.0']
