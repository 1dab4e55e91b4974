"""The generic step on one-weight fakes: who moves what, how often, and with which gradient."""

import dataclasses
from collections.abc import Callable
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.averages import Average
from engine.metric_rows import weighted_means
from engine.optimizers import build_optimizers
from engine.step import examples_per_step
from objectives.base import Aux, Context, Mean, Objective, Player
from tests.steps import first_state, sgd, train_step

NO_AVERAGES = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Pair(Objective):
  """Two modules with one weight each; the loss of either depends on both."""

  modules: dict = dataclasses.field(default_factory=dict)
  repeats: int = 1

  @property
  def players(self):
    return (
      Player('first', ('a',), self.loss_of('a'), self.repeats),
      Player('second', ('b',), self.loss_of('b')),
    )

  def init(self, key, batch):
    zero = {'count': jnp.int32(0), 'last': jnp.float32(0)}
    weights = {'a': jnp.float32(0.5), 'b': jnp.float32(2.0)}
    return {name: {'params': {'w': weight}, 'seen': zero} for name, weight in weights.items()}

  def evaluate(self, variables, batch, keys):
    raise AssertionError('a step evaluates nothing')

  def loss_of(self, module):
    def loss(params, mutable, batch, context: Context):
      x = batch['x'] + 0.01 * jax.vmap(jax.random.normal)(context.fold('noise'))
      value = jnp.mean((params['a']['w'] * params['b']['w'] * x - 1) ** 2)
      before = mutable[module]['seen']
      seen = {'count': before['count'] + 1, 'last': batch['x'].sum()}
      return value, Aux({'mean_x': batch['x'].mean()}, {module: {'seen': seen}})

    return loss


@dataclasses.dataclass(frozen=True)
class Acting(Pair):
  """As `Pair`, with players of one's own."""

  make: Callable[[], tuple[Player, ...]] = tuple

  @property
  def players(self):
    return self.make()


def take(objective, first, second, averages=NO_AVERAGES, accumulate=1, batch_size=4, steps=1):
  """The state after some steps, and the metrics of each."""
  optimizers = {'first': first, 'second': second}
  step = train_step(objective, batch_size, accumulate, averages, optimizers)
  jitted = jax.jit(step.__call__)
  state, history = first_state(step, {}), []
  rows = examples_per_step(objective, batch_size)
  for i in range(steps):
    x = jnp.arange(rows, dtype=jnp.float32) / rows + 1 + i
    state, metrics = jitted(state, {'x': x})
    history.append(metrics)
  return state, history


def test_each_player_changes_only_what_it_moves():
  frozen_second, _ = take(Pair(), sgd(0.1), sgd(0.0))
  assert frozen_second.params['b']['w'] == 2.0
  assert frozen_second.params['a']['w'] != 0.5
  frozen_first, _ = take(Pair(), sgd(0.0), sgd(0.1))
  assert frozen_first.params['a']['w'] == 0.5
  assert frozen_first.params['b']['w'] != 2.0


def test_the_second_player_sees_what_the_first_has_done():
  alone, _ = take(Pair(), sgd(0.0), sgd(0.1))
  after, _ = take(Pair(), sgd(0.1), sgd(0.1))
  assert alone.params['b']['w'] != after.params['b']['w']


@pytest.mark.parametrize('repeats', [1, 3])
def test_repeats_are_counted_and_see_their_own_slices(repeats):
  objective = Pair(repeats=repeats)
  assert examples_per_step(objective, 4) == 4 * repeats
  state, (metrics,) = take(objective, sgd(0.0), sgd(0.0))
  assert state.mutable['a']['seen']['count'] == repeats
  assert state.mutable['b']['seen']['count'] == 1
  assert state.step == 1
  whole = np.arange(4 * repeats) / (4 * repeats) + 1
  # Averaged over the repeats, the slices make up the whole batch, each row once.
  np.testing.assert_allclose(metrics['first/mean_x'].value, whole.mean(), rtol=1e-6)
  assert metrics['first/mean_x'].weight == repeats
  last = [state.mutable[module]['seen']['last'] for module in 'ab']
  np.testing.assert_allclose(last[0], whole[repeats - 1 :: repeats].sum())
  np.testing.assert_allclose(last[1], whole[::repeats].sum())


def test_one_update_is_the_gradient_by_hand():
  state, (metrics,) = take(Pair(), sgd(0.1), sgd(0.0), batch_size=2)
  assert metrics['first/learning_rate'].value == np.float32(0.1)
  # d/da mean((a·b·x − 1)²) = mean(2(a·b·x − 1)·b·x); the noise of 0.01 is within the tolerance.
  x = np.array([1.0, 1.5])
  gradient = np.mean(2 * (0.5 * 2.0 * x - 1) * 2.0 * x)
  np.testing.assert_allclose(0.5 - state.params['a']['w'], 0.1 * gradient, atol=2e-2)
  np.testing.assert_allclose(metrics['first/gradient_norm'].value, gradient, atol=2e-1)


def test_accumulation_equals_the_big_batch():
  whole, seen = take(Pair(), sgd(0.1), sgd(0.1), batch_size=8, steps=3)
  cut, seen_cut = take(Pair(), sgd(0.1), sgd(0.1), batch_size=8, accumulate=4, steps=3)
  for module in 'ab':
    np.testing.assert_allclose(whole.params[module]['w'], cut.params[module]['w'], rtol=1e-4)
  losses = [history[-1]['second/loss'].value for history in (seen, seen_cut)]
  np.testing.assert_allclose(*losses, rtol=1e-4)
  assert cut.mutable['a']['seen']['count'] == 12  # every microbatch passes its collections on


def test_average_is_ramped_and_then_decays():
  averages = {'slow': Average('a', decay=0.25, half_life=0.0)}
  state, _ = take(Pair(), sgd(0.1), sgd(0.0), averages)
  # Step 0: the ramp (1 + 0)/(10 + 0) is below the decay.
  expected = 0.1 * 0.5 + 0.9 * float(state.params['a']['w'])
  np.testing.assert_allclose(state.ema['slow']['w'], expected, rtol=1e-6)
  before, _ = take(Pair(), sgd(0.1), sgd(0.0), averages, steps=5)
  after, _ = take(Pair(), sgd(0.1), sgd(0.0), averages, steps=6)
  expected = 0.25 * float(before.ema['slow']['w']) + 0.75 * float(after.params['a']['w'])
  np.testing.assert_allclose(after.ema['slow']['w'], expected, rtol=1e-6)
  assert set(after.ema) == {'slow'}


def test_noise_differs_from_step_to_step_player_to_player_and_repeat_to_repeat():
  def loss(params, mutable, batch, context):
    streams = {name: jax.random.normal(key) for name, key in context.rngs.items()}
    # Squared, so that the mean over repeats is no sum of the means.
    noise = jnp.stack([jax.random.normal(context.keys[0]), *streams.values()])
    seen = {'count': mutable['a']['seen']['count'] + 1, 'last': noise[0]}
    return 0 * params['a']['w'], Aux({**streams, 'noise': noise[0]}, {'a': {'seen': seen}})

  players = (Player('first', ('a',), loss), Player('second', ('a',), loss, repeats=2))
  state, (one, two) = take(Acting(make=lambda: players), sgd(0.1), sgd(0.1), steps=2)
  for name in ('noise', 'params', 'dropout'):
    values = [m[f'{player}/{name}'].value for m in (one, two) for player in ('first', 'second')]
    assert len({float(value) for value in values}) == 4
  # The mean over the second player's repeats is not what its last repeat had.
  assert two['second/noise'].value != state.mutable['a']['seen']['last']


# --- players that rest


def lazy(every):
  """`second` acts on steps divisible by `every`, with the optimizer of `first`."""

  def loss(params, mutable, batch, context):
    value = jnp.mean(params['a']['w'] * batch['x'])
    return value, Aux({'when': Mean(context.step.astype(jnp.float32), 3.0)}, {})

  return Acting(
    make=lambda: (
      Player('first', ('a',), loss),
      Player('second', ('a',), loss, every=every, optimizer='first'),
    )
  )


ADAM = dict(
  name='adam', learning_rate=0.1, clip=0.0, weight_decay=0.0, l1=0.0, clip_weights=0.0,
  decay_only='',
  schedule=dict(name='cosine', warmup=0, end=0.0, boundaries=(), factors=()),
)  # fmt: skip


def take_lazy(every, steps):
  objective = lazy(every)
  optimizers = build_optimizers({'first': ADAM}, objective, 10)
  step = train_step(objective, 2, optimizers=optimizers)
  states, history, jitted = [first_state(step, {})], [], jax.jit(step.__call__)
  for _ in range(steps):
    state, metrics = jitted(states[-1], {'x': jnp.ones(2)})
    states.append(state)
    history.append(metrics)
  return states, history


def test_a_player_acts_on_steps_divisible_by_every_and_rests_on_others():
  states, history = take_lazy(3, 7)
  acted = [float(metrics['second/loss'].weight) > 0 for metrics in history]
  assert acted == [True, False, False, True, False, False, True]
  for metrics, acts in zip(history, acted):
    for name, mean in metrics.items():
      if name.startswith('second/'):
        assert (float(mean.weight) > 0) == acts and np.isfinite(mean.value), name
    assert metrics['first/loss'].weight == 1
  assert history[3]['second/when'] == (3, 3)
  # One optimizer: its count goes up by the updates of both.
  counts = [int(state.opt_state['first'][0][0].count) for state in states]
  assert counts == [0, 2, 3, 4, 6, 7, 8, 10]
  assert set(states[0].opt_state) == {'first'}


def test_means_over_steps_are_over_those_in_which_a_player_acted():
  _, history = take_lazy(3, 5)
  names = sorted(history[0])
  rows = np.array([[[m[name].value, m[name].weight] for name in names] for m in history])
  (means,) = weighted_means(rows[None], names)
  np.testing.assert_allclose(means['second/when'], 1.5)  # of steps 0 and 3
  np.testing.assert_allclose(means['first/when'], 2)
  losses = [float(history[step]['second/loss'].value) for step in (0, 3)]
  np.testing.assert_allclose(means['second/loss'], np.mean(losses), rtol=1e-6)
  (resting,) = weighted_means(rows[None, 1:3], names)
  assert set(resting) == {name for name in names if name.startswith('first/')}


def test_means_are_weighted_and_of_each_lane():
  rows = np.array([[[[1.0, 1.0]], [[5.0, 3.0]]], [[[2.0, 0.0]], [[7.0, 0.0]]]], np.float32)
  assert weighted_means(rows, ['x']) == [{'x': 4.0}, {}]


@pytest.mark.parametrize('every, branches', [(1, 0), (2, 1)])
def test_who_never_rests_costs_no_branch(every, branches):
  step = train_step(lazy(every), 2)
  traced = jax.make_jaxpr(step.__call__)(first_state(step, {}), {'x': jnp.ones(2)})
  assert str(traced).count(' cond[') == branches


def test_the_learning_rate_is_that_of_the_run_s_step():
  """Also where an optimizer updates more or less often than once a step."""
  rate = build_optimizers({'first': ADAM}, lazy(3), 10)['first'].rate
  _, history = take_lazy(3, 5)
  for step, metrics in enumerate(history):
    expected = 0.05 * (1 + np.cos(np.pi * step / 10))
    np.testing.assert_allclose(rate(step), expected, rtol=1e-5)
    assert metrics['first/learning_rate'].value == np.float32(rate(jnp.int32(step)))
    if step in (0, 3):
      assert metrics['second/learning_rate'].value == np.float32(rate(jnp.int32(step)))
  schedule = dict(name='cosine', warmup=0, end=0.0, boundaries=(), factors=())
  slowing = sgd(0.1, schedule=schedule)
  _, history = take(Pair(repeats=3), slowing, sgd(0.0), steps=51)
  np.testing.assert_allclose(history[50]['first/learning_rate'].value, 0.05, rtol=1e-5)
  # What was applied: of one update alone the step is the rate times the gradient.
  once, history = take(Pair(), slowing, sgd(0.0), steps=51)
  earlier, _ = take(Pair(), slowing, sgd(0.0), steps=50)
  moved = abs(float(once.params['a']['w'] - earlier.params['a']['w']))
  np.testing.assert_allclose(moved, 0.05 * history[50]['first/gradient_norm'].value, rtol=1e-2)


def test_players_that_share_an_optimizer_move_the_same():
  players = (
    Player('first', ('a',), Pair().loss_of('a')),
    Player('second', ('b',), Pair().loss_of('b'), optimizer='first'),
  )
  with pytest.raises(ValueError, match='share optimizer "first"'):
    build_optimizers({'first': ADAM}, Acting(make=lambda: players), 10)
