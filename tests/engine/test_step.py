"""The generic step on one-weight fakes: who moves what, how often, and with which gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.optimizers import make_optimizer
from engine.state import State
from engine.step import examples_per_step, make_step
from objectives.base import Aux, Player, example_keys


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


class Pair:
  """Two modules with one weight each; the loss of either depends on both."""

  modules = {}

  def __init__(self, repeats=1):
    self.players = (
      Player('first', ('a',), self.loss_of('a'), repeats),
      Player('second', ('b',), self.loss_of('b')),
    )

  def loss_of(self, module):
    def loss(params, mutable, batch, key):
      x = batch['x'] + 0.01 * jax.vmap(jax.random.normal)(example_keys(key, batch))
      value = jnp.mean((params['a']['w'] * params['b']['w'] * x - 1) ** 2)
      seen = {'count': mutable[module]['count'] + 1, 'last': batch['x'].sum()}
      return value, Aux({'mean_x': batch['x'].mean()}, {module: seen})

    return loss


def start(objective, chains, ema=()):
  params = {'a': {'w': jnp.float32(0.5)}, 'b': {'w': jnp.float32(2.0)}}
  zero = {'count': jnp.int32(0), 'last': jnp.float32(0)}
  return State(
    step=jnp.int32(0),
    params=params,
    mutable={'a': zero, 'b': zero},
    opt_state={
      p.name: chains[p.name].init({m: params[m] for m in p.moves}) for p in objective.players
    },
    ema={module: params[module] for module in ema},
    key=jax.random.key(0),
  )


def take(objective, first, second, ema=None, accumulate=1, batch_size=4, steps=1):
  chains = {'first': first, 'second': second}
  step = jax.jit(make_step(objective, chains, ema or {}, accumulate, batch_size))
  state = start(objective, chains, ema or ())
  rows = examples_per_step(objective, batch_size)
  metrics = None
  for i in range(steps):
    x = jnp.arange(rows, dtype=jnp.float32) / rows + 1 + i
    state, metrics = step(state, {'x': x})
  return state, metrics


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
  objective = Pair(repeats)
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
  state, metrics = take(Pair(), sgd(0.1), sgd(0.0), batch_size=2)
  key = jax.random.fold_in(jax.random.key(0), 0)
  assert metrics['first/learning_rate'] == np.float32(0.1)
  # d/da mean((a·b·x − 1)²) = mean(2(a·b·x − 1)·b·x); the noise of 0.01 is within the tolerance.
  x = np.array([1.0, 1.5])
  gradient = np.mean(2 * (0.5 * 2.0 * x - 1) * 2.0 * x)
  np.testing.assert_allclose(0.5 - state.params['a']['w'], 0.1 * gradient, atol=2e-2)
  np.testing.assert_allclose(metrics['first/gradient_norm'], gradient, atol=2e-1)
  del key


def test_accumulation_equals_the_big_batch():
  whole, seen = take(Pair(), sgd(0.1), sgd(0.1), batch_size=8, steps=3)
  cut, seen_cut = take(Pair(), sgd(0.1), sgd(0.1), batch_size=8, accumulate=4, steps=3)
  for module in 'ab':
    np.testing.assert_allclose(whole.params[module]['w'], cut.params[module]['w'], rtol=1e-5)
  np.testing.assert_allclose(seen['second/loss'], seen_cut['second/loss'], rtol=1e-4)
  assert cut.mutable['a']['count'] == 12  # every microbatch passes its collections on


def test_average_is_ramped_and_then_decays():
  decay = 0.25
  state, _ = take(Pair(), sgd(0.1), sgd(0.0), ema={'a': decay}, steps=1)
  # Step 0: the ramp (1 + 0)/(10 + 0) is below the decay.
  wanted = 0.1 * 0.5 + 0.9 * float(state.params['a']['w'])
  np.testing.assert_allclose(state.ema['a']['w'], wanted, rtol=1e-6)
  before, _ = take(Pair(), sgd(0.1), sgd(0.0), ema={'a': decay}, steps=5)
  after, _ = take(Pair(), sgd(0.1), sgd(0.0), ema={'a': decay}, steps=6)
  wanted = decay * float(before.ema['a']['w']) + (1 - decay) * float(after.params['a']['w'])
  np.testing.assert_allclose(after.ema['a']['w'], wanted, rtol=1e-6)
  assert set(after.ema) == {'a'}


def test_noise_differs_from_step_to_step_and_player_to_player():
  objective = Pair()
  drawn = []

  def loss(params, mutable, batch, key):
    drawn.append(key)
    return params['a']['w'] * 0.0, Aux({'noise': jax.random.normal(key)}, {})

  objective.players = (Player('first', ('a',), loss), Player('second', ('a',), loss))
  _, one = take(objective, sgd(0.1), sgd(0.1), steps=1)
  _, two = take(objective, sgd(0.1), sgd(0.1), steps=2)
  values = [one['first/noise'], one['second/noise'], two['first/noise'], two['second/noise']]
  assert len({float(v) for v in values}) == 4
