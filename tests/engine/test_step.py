"""The step on one-weight fakes: who moves what, how often, and with which gradient and noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from engine.averages import Average, chosen_averages, named_averages
from engine.gradients import mean_gradient
from engine.init_rules import nothing_frozen
from engine.metric_rows import weighted_means
from engine.optimizers import build_optimizers, make_optimizer
from engine.state import State
from engine.step import TrainStep, examples_per_step
from errors import UserError
from objectives.base import Aux, Mean, Objective, Player


def sgd(rate, **options):
  section = dict(
    name='sgd',
    learning_rate=rate,
    schedule=dict(name='constant', warmup=0, end=0.0, boundaries=(), factors=()),
    clip=0.0,
    weight_decay=0.0,
    l1=0.0,
    clip_weights=0.0,
    decay_only='',
  )
  return make_optimizer(100, 'config.optimizer.x', **{**section, **options})


@dataclasses.dataclass(frozen=True)
class Pair(Objective):
  """Two modules with one weight each; the loss of either depends on both."""

  repeats: int = 1
  extra: tuple = ()

  @property
  def players(self):
    return (
      Player('first', ('a',), self.loss_of('a'), self.repeats),
      Player('second', ('b',), self.loss_of('b')),
      *self.extra,
    )

  def init(self, key, batch):
    raise AssertionError('not called')

  def evaluate(self, variables, batch, keys):
    return {}

  def loss_of(self, module):
    def loss(params, mutable, batch, context):
      x = batch['x'] + 0.01 * jax.vmap(jax.random.normal)(context.keys)
      value = jnp.mean((params['a']['w'] * params['b']['w'] * x - 1) ** 2)
      seen = {'count': mutable[module]['count'] + 1, 'last': batch['x'].sum()}
      return value, Aux({'mean_x': batch['x'].mean()}, {module: seen})

    return loss


def start(objective, optimizers, averages):
  params = {'a': {'w': jnp.float32(0.5)}, 'b': {'w': jnp.float32(2.0)}}
  zero = {'count': jnp.int32(0), 'last': jnp.float32(0)}
  return State(
    step=jnp.int32(0),
    params=params,
    mutable={'a': zero, 'b': zero},
    opt_state={
      p.optimizer_name: optimizers[p.optimizer_name].init({m: params[m] for m in p.moves})
      for p in objective.players
    },
    ema={name: {'params': params[each.module], **zero} for name, each in averages.items()},
    key=jax.random.key(0),
  )


def train_step(objective, first, second, averages=None, accumulate=1, batch_size=4):
  optimizers = {'first': first, 'second': second}
  return TrainStep(
    objective, optimizers, averages or {}, mean_gradient, nothing_frozen, batch_size, accumulate
  )


def take(objective, first, second, averages=None, accumulate=1, batch_size=4, steps=1, each=None):
  """The state after some steps and the metrics of the last one; `each` collects all metrics."""
  step = train_step(objective, first, second, averages, accumulate, batch_size)
  jitted = jax.jit(step)
  state = start(objective, step.optimizers, step.averages)
  rows = examples_per_step(objective, batch_size)
  metrics = {}
  for i in range(steps):
    x = jnp.arange(rows, dtype=jnp.float32) / rows + 1 + i
    state, metrics = jitted(state, {'x': x})
    if each is not None:
      each.append(metrics)
  return state, {name: mean.value for name, mean in metrics.items()}


PAIR = Pair({})


def test_each_player_changes_only_what_it_moves():
  frozen_second, _ = take(PAIR, sgd(0.1), sgd(0.0))
  assert frozen_second.params['b']['w'] == 2.0
  assert frozen_second.params['a']['w'] != 0.5
  frozen_first, _ = take(PAIR, sgd(0.0), sgd(0.1))
  assert frozen_first.params['a']['w'] == 0.5
  assert frozen_first.params['b']['w'] != 2.0


def test_the_second_player_sees_the_update_of_the_first():
  alone, _ = take(PAIR, sgd(0.0), sgd(0.1))
  after, _ = take(PAIR, sgd(0.1), sgd(0.1))
  assert alone.params['b']['w'] != after.params['b']['w']


@pytest.mark.parametrize('repeats', [1, 3])
def test_repeats_are_counted_and_see_their_own_slices(repeats):
  objective = Pair({}, repeats)
  assert examples_per_step(objective, 4) == 4 * repeats
  state, metrics = take(objective, sgd(0.0), sgd(0.0))
  assert state.mutable['a']['count'] == repeats
  assert state.mutable['b']['count'] == 1
  assert state.step == 1
  whole = np.arange(4 * repeats) / (4 * repeats) + 1
  # Averaged over the repeats, the slices make up the whole batch, each row once.
  np.testing.assert_allclose(metrics['first/mean_x'], whole.mean(), rtol=1e-6)
  np.testing.assert_allclose(state.mutable['a']['last'], whole[repeats - 1 :: repeats].sum())
  np.testing.assert_allclose(state.mutable['b']['last'], whole[::repeats].sum())


def test_one_update_is_the_gradient_by_hand():
  state, metrics = take(PAIR, sgd(0.1), sgd(0.0), batch_size=2)
  assert metrics['first/learning_rate'] == np.float32(0.1)
  # d/da mean((a·b·x − 1)²) = mean(2(a·b·x − 1)·b·x); the noise of 0.01 is within the tolerance.
  x = np.array([1.0, 1.5])
  gradient = np.mean(2 * (0.5 * 2.0 * x - 1) * 2.0 * x)
  np.testing.assert_allclose(0.5 - state.params['a']['w'], 0.1 * gradient, atol=2e-2)
  np.testing.assert_allclose(metrics['first/gradient_norm'], gradient, atol=2e-1)


@pytest.mark.parametrize('accumulate', [2, 4])
def test_accumulation_equals_the_big_batch(accumulate):
  whole, seen = take(PAIR, sgd(0.1), sgd(0.1), batch_size=8, steps=3)
  cut, seen_cut = take(PAIR, sgd(0.1), sgd(0.1), batch_size=8, accumulate=accumulate, steps=3)
  for module in 'ab':
    np.testing.assert_allclose(whole.params[module]['w'], cut.params[module]['w'], rtol=1e-5)
  np.testing.assert_allclose(seen['second/loss'], seen_cut['second/loss'], rtol=1e-4)
  assert cut.mutable['a']['count'] == 3 * accumulate  # every microbatch passes its own on


class Weighted(Pair):
  """The first player's loss is a mean over the rows with x > 1.3, of which microbatches differ."""

  @property
  def players(self):
    def loss(params, mutable, batch, context):
      real = batch['x'] > 1.3
      number = real.sum()
      errors = jnp.where(real, (params['a']['w'] * batch['x'] - 1) ** 2, 0)
      value = errors.sum() / jnp.maximum(number, 1)
      high = Mean(batch['x'].max(), (batch['x'] > 1.7).sum())
      return value, Aux({'high': high}, {}, number.astype(jnp.float32))

    return (Player('first', ('a',), loss),)


@pytest.mark.parametrize('accumulate', [2, 4, 8])
def test_microbatches_weigh_as_much_as_they_have_targets(accumulate):
  objective = Weighted({})
  whole, seen = take(objective, sgd(0.1), sgd(0.1), batch_size=8)
  cut, seen_cut = take(objective, sgd(0.1), sgd(0.1), batch_size=8, accumulate=accumulate)
  np.testing.assert_allclose(cut.params['a']['w'], whole.params['a']['w'], rtol=1e-6)
  np.testing.assert_allclose(seen_cut['first/loss'], seen['first/loss'], rtol=1e-6)


def test_without_any_target_there_is_no_gradient():
  objective = Weighted({})
  step = train_step(objective, sgd(0.1), sgd(0.1), accumulate=2)
  state = start(objective, step.optimizers, {})
  after, metrics = jax.jit(step)(state, {'x': jnp.ones(4)})
  assert after.params['a']['w'] == 0.5 and metrics['first/loss'] == Mean(0.0, 0.0)


def test_averages_are_ramped_and_then_decay():
  decay = 0.25
  averages = {'quick': Average('a', decay, 0.0), 'slow': Average('a', 0.0, 40.0)}
  state, _ = take(PAIR, sgd(0.1), sgd(0.0), averages, steps=1)
  # Step 0: the ramp (1 + 0)/(10 + 0) is below both decays.
  expected = 0.1 * 0.5 + 0.9 * float(state.params['a']['w'])
  for name in averages:
    np.testing.assert_allclose(state.ema[name]['params']['w'], expected, rtol=1e-6)
    # Statistics are averaged too, and counts are the newest.
    mutable = state.mutable['a']
    assert state.ema[name]['count'] == mutable['count'] == 1
    np.testing.assert_allclose(state.ema[name]['last'], 0.9 * float(mutable['last']), rtol=1e-6)
  before, _ = take(PAIR, sgd(0.1), sgd(0.0), averages, steps=5)
  after, _ = take(PAIR, sgd(0.1), sgd(0.0), averages, steps=6)
  expected = decay * float(before.ema['quick']['params']['w']) + (1 - decay) * float(
    after.params['a']['w']
  )
  np.testing.assert_allclose(after.ema['quick']['params']['w'], expected, rtol=1e-6)
  # 4 examples a step: half of the old average is left after 10 steps, once past the ramp.
  average, t = averages['slow'], jnp.int32(1000)
  tree = 1.0
  for _ in range(10):
    tree = average.updated(tree, 0.0, t, examples=4)
  np.testing.assert_allclose(tree, 0.5, rtol=1e-5)


def test_the_average_that_is_asked_for():
  averages = {'quick': Average('a', 0.5, 0.0), 'slow': Average('a', 0.9, 0.0)}
  averages['other'] = Average('b', 0.9, 0.0)
  assert chosen_averages(averages, '') == {'a': 'quick', 'b': 'other'}
  assert chosen_averages(averages, 'slow') == {'a': 'slow', 'b': 'other'}
  assert chosen_averages(averages, 'none') == {}
  with pytest.raises(UserError, match=r'--average=slw is unknown \(did you mean "slow"\?\)'):
    chosen_averages(averages, 'slw')


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    (dict(module='a', decay=0.5, half_life=10.0), 'set one of them'),
    (dict(module='a', decay=0.0, half_life=0.0), 'set one of them'),
    (dict(module='c', decay=0.5, half_life=0.0), 'ema.x.module=c is unknown'),
    (dict(module='a', decay=1.0, half_life=0.0), 'decay=1.0 must be at least 0 and below 1'),
    (dict(module='a', decay=float('nan'), half_life=0.0), 'must be a finite number'),
  ],
)
def test_averages_that_make_no_sense(section, message):
  with pytest.raises(UserError, match=message):
    named_averages(ConfigDict(dict(ema=dict(x=section))), {'a': None, 'b': None})
  with pytest.raises(UserError, match='--average=none means no average'):
    named_averages(ConfigDict(dict(ema=dict(none=section))), {'a': None})


def noisy(names):
  """Players that report their noise; none moves anything."""

  def loss(params, mutable, batch, context):
    noise = {
      'example': jax.random.normal(context.keys[0]),
      'last': jax.random.normal(context.keys[-1]),
      'stream': jax.random.normal(context.fold('x')[0]),
      'dropout': jax.random.normal(context.rngs['dropout']),
      'params': jax.random.normal(context.rngs['params']),
      'named': jax.random.normal(context.rngs_for('x')['dropout']),
    }
    return params['a']['w'] * 0.0, Aux(noise, {})

  class Noisy(Pair):
    @property
    def players(self):
      return tuple(Player(name, ('a',), loss) for name in names)

  return Noisy({})


def test_noise_differs_between_steps_players_streams_and_examples():
  objective = noisy(['first', 'second'])
  seen = []
  take(objective, sgd(0.1), sgd(0.1), steps=2, each=seen)
  names = ('example', 'last', 'stream', 'dropout', 'params', 'named')
  values = [
    float(metrics[f'{player}/{name}'].value)
    for metrics in seen
    for player in ('first', 'second')
    for name in names
  ]
  assert len(values) == 24 and len(set(values)) == 24


class Masks(Pair):
  """Records the dropout key and the per-example keys of every microbatch and repeat."""

  @property
  def players(self):
    def loss(params, mutable, batch, context):
      row = mutable['a']['count']
      seen = {
        'count': row + 1,
        'dropout': mutable['a']['dropout'].at[row].set(jax.random.uniform(context.rngs['dropout'])),
        'noise': mutable['a']['noise']
        .at[batch['row']]
        .set(jax.vmap(jax.random.uniform)(context.keys)),
      }
      return params['a']['w'] * batch['x'].mean(), Aux({}, {'a': seen})

    return (Player('first', ('a',), loss, self.repeats),)


@pytest.mark.parametrize(('repeats', 'accumulate'), [(1, 1), (1, 2), (1, 4), (3, 2)])
def test_dropout_differs_in_every_microbatch_and_noise_does_not_depend_on_them(repeats, accumulate):
  def run(accumulate):
    objective = Masks({}, repeats)
    step = train_step(objective, sgd(0.1), sgd(0.1), accumulate=accumulate, batch_size=8)
    rows = 8 * repeats
    state = start(objective, step.optimizers, {})
    masks = {'count': jnp.int32(0), 'dropout': jnp.zeros(12), 'noise': jnp.zeros(rows)}
    state = state.replace(mutable={'a': masks, 'b': {}})
    batch = {'x': jnp.ones(rows), 'row': jnp.arange(rows)}
    return jax.jit(step)(state, batch)[0].mutable['a']

  cut, whole = run(accumulate), run(1)
  number = repeats * accumulate
  assert cut['count'] == number and len(set(cut['dropout'][:number].tolist())) == number
  np.testing.assert_array_equal(cut['noise'], whole['noise'])
  assert len(set(cut['noise'].tolist())) == 8 * repeats


# --- a player's rhythm


def lazy(every):
  def loss(params, mutable, batch, context):
    return params['a']['w'] ** 2, Aux({'x': batch['x'].mean()}, {})

  return Player('lazy', ('a',), loss, every=every, optimizer='first')


def test_a_player_acts_on_every_third_step_with_an_optimizer_it_shares():
  seen = []
  state, _ = take(Pair({}, 1, (lazy(3),)), sgd(0.0), sgd(0.0), steps=7, each=seen)
  assert state.params['a']['w'] == 0.5 and set(state.opt_state) == {'first', 'second'}
  weights = [float(metrics['lazy/x'].weight) for metrics in seen]
  assert weights == [1, 0, 0, 1, 0, 0, 1]
  names = ('lazy/x', 'first/mean_x')
  rows = np.array([[[[*map(float, m[name])] for name in names] for m in seen]])
  (figures,) = weighted_means(rows, names)
  # x is 1 + (0 + ¼ + ½ + ¾)/4 + i in step i.
  np.testing.assert_allclose(figures['lazy/x'], 1.375 + np.mean([0, 3, 6]), rtol=1e-6)
  np.testing.assert_allclose(figures['first/mean_x'], 1.375 + 3, rtol=1e-6)
  assert weighted_means(rows[:, 1:3], names)[0].keys() == {'first/mean_x'}
  moved, _ = take(Pair({}, 1, (lazy(3),)), sgd(0.1), sgd(0.0), steps=2)
  plain, _ = take(PAIR, sgd(0.1), sgd(0.0), steps=2)
  assert moved.params['a']['w'] != plain.params['a']['w']


def test_only_a_player_that_rests_makes_a_condition():
  def jaxpr(objective):
    step = train_step(objective, sgd(0.1), sgd(0.1))
    state = start(objective, step.optimizers, {})
    return str(jax.make_jaxpr(step)(state, {'x': jnp.ones(4)}))

  assert 'cond[' in jaxpr(Pair({}, 1, (lazy(2),)))
  assert 'cond[' not in jaxpr(Pair({}, 1, (lazy(1),)))


def test_the_rate_follows_the_steps_of_the_run():
  """Not the updates: neither three a step nor one every second step change the schedule."""
  schedule = dict(name='cosine', warmup=0, end=0.0, boundaries=(), factors=())
  falling = lambda: sgd(1e-9, schedule=schedule)  # noqa: E731
  seen = []
  objective = Pair({}, 3, (lazy(2),))
  take(objective, falling(), falling(), steps=5, each=seen)
  expected = [0.5 * 1e-9 * (1 + np.cos(np.pi * t / 100)) for t in range(5)]
  for player, steps in (('first', range(5)), ('second', range(5)), ('lazy', (0, 2, 4))):
    rates = [float(seen[t][f'{player}/learning_rate'].value) for t in steps]
    np.testing.assert_allclose(rates, [expected[t] for t in steps], rtol=1e-5)


def test_optimizers_and_players_must_agree():
  section = {'name': 'sgd'}
  with pytest.raises(UserError, match='no section for the player "second"'):
    build_optimizers({'first': section}, PAIR, 10)
  with pytest.raises(UserError, match=r'config.optimizer.secnd has no effect: .* \(did you mean'):
    build_optimizers({'first': section, 'secnd': section}, PAIR, 10)
