"""What saves memory or time changes no result: each against the plain run, in the real program.

Twenty steps of a small GPT. A tolerance is a share of the way that the parameters went.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.defaults import optimizer
from engine import host_memory, runtime
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.optimizer_options import AVERAGING
from engine.optimizers import Optimizer, make_optimizer
from engine.session import open_session
from errors import UserError
from tests.engine.test_program import opened
from tests.golden import tiny

STEPS = 20
HALF = {'train.precision': 'bfloat16'}
REMAT = {'modules.model.remat': True}


def config_with(changes):
  config = tiny.config_of('gpt', 'python_stdlib')
  config.modules.model.layers = 2
  config.train.dispatch = STEPS
  config.optimizer.model.schedule.warmup = 0
  for place, value in changes.items():
    config.update_from_flattened_dict({place: value})
  return config


@functools.cache
def trained(items):
  """(state before, after, session) of a run with these changes."""
  session, program, taken = opened(config_with(dict(items)), 'gpt', STEPS)
  first = jax.device_get(session.init().params)
  state, ok, _ = program.dispatch(
    session.init(), jnp.bool_(True), taken, jnp.int32(STEPS), jnp.ones(1, bool)
  )
  assert ok and int(state.step) == STEPS
  return first, state, session


def run(changes):
  return trained(tuple(sorted(changes.items())))


def length(tree):
  return float(np.sqrt(sum(np.square(np.float64(leaf)).sum() for leaf in jax.tree.leaves(tree))))


def distance(changes, plain):
  """How far apart two runs end, as a share of the way that the plain one went."""
  first, wanted, _ = run(plain)
  same, got, _ = run(changes)
  jax.tree.map(np.testing.assert_array_equal, same, first)
  apart = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), got.params, wanted.params)
  went = jax.tree.map(lambda a, b: np.asarray(a) - b, wanted.params, first)
  assert length(went) > 0.1
  return length(apart) / length(went)


# (changes, the run that they are compared with, tolerance)
LEVERS = {
  'bfloat16': (HALF, {}, 0.03),
  'a narrow stream': ({**HALF, 'modules.model.residual': 'precision'}, HALF, 0.05),
  'a stream as the products': ({'modules.model.residual': 'precision'}, {}, 0.0),
  'narrow logits': ({**HALF, 'objective.loss_chunks': 1}, HALF, 0.02),
  'one chunk': ({'objective.loss_chunks': 1}, {}, 0.0),
  'chunks': ({'objective.loss_chunks': 3}, {}, 1e-5),
  'remat': (REMAT, {}, 1e-5),
  'remat but products': (
    {**REMAT, 'modules.model.remat_policy': 'dots_with_no_batch_dims_saveable'}, {}, 1e-5,
  ),
  'remat but all products': ({**REMAT, 'modules.model.remat_policy': 'dots_saveable'}, {}, 1e-5),
  'remat, products on the host': (
    {**REMAT, 'modules.model.remat_policy': 'offload_dot_with_no_batch_dims'}, {}, 1e-5,
  ),
  'accumulation': ({'train.accumulate': 4}, {}, 1e-5),
  'a narrow optimizer': ({'optimizer.model.state_dtype': 'bfloat16'}, {}, 0.01),
  'an optimizer on the host': ({'optimizer.model.offload': True}, {}, 0.0),
  'latency hiding': ({'train.latency_hiding': True}, {}, 0.0),
}  # fmt: skip


@pytest.mark.parametrize(('changes', 'plain', 'tolerance'), LEVERS.values(), ids=LEVERS)
def test_a_lever_ends_where_the_plain_run_does(changes, plain, tolerance):
  assert distance(changes, plain) <= tolerance


def test_half_precision_is_of_the_computation_alone():
  for changes in (HALF, {**HALF, 'modules.model.residual': 'precision'}):
    _, state, _ = run(changes)
    floats = [leaf for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.ndim]
    assert {leaf.dtype.name for leaf in floats} == {'float32'}


def test_a_narrow_state_takes_half_the_memory():
  _, wide, _ = run({})
  _, narrow, _ = run({'optimizer.model.state_dtype': 'bfloat16'})
  arrays = [leaf for leaf in jax.tree.leaves(narrow.opt_state) if leaf.ndim]
  assert {leaf.dtype.name for leaf in arrays} == {'bfloat16'}
  assert {leaf.dtype.name for leaf in jax.tree.leaves(narrow.params)} == {'float32'}
  assert (
    sum(leaf.nbytes for leaf in arrays)
    == sum(leaf.nbytes for leaf in jax.tree.leaves(wide.opt_state) if leaf.ndim) / 2
  )


def test_an_offloaded_state_lives_in_the_host_s_memory():
  _, state, session = run({'optimizer.model.offload': True})
  kinds = {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}
  assert kinds == {'pinned_host'}
  assert not any(host_memory.in_host_memory(leaf) for leaf in jax.tree.leaves(state.params))
  assert all(map(host_memory.in_host_memory, [x for x in jax.tree.leaves(
    session.abstract.opt_state) if x.ndim]))  # fmt: skip


@pytest.mark.parametrize('option', ['offload', 'state_dtype'])
def test_a_checkpoint_of_it_is_read_back_as_it_was(option, tmp_path):
  value = True if option == 'offload' else 'bfloat16'
  _, state, session = run({f'optimizer.model.{option}': value})
  given = dict(every=1, keep=1, best='', best_mode='min')
  checkpoints = Checkpoints(str(tmp_path), **given)
  checkpoints.save(STEPS, state, {}, [])
  checkpoints.close()
  found, _ = Checkpoints(str(tmp_path), **given).restore(session.abstract)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
    assert (a.dtype, a.sharding.memory_kind) == (b.dtype, b.sharding.memory_kind)
    if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
      np.testing.assert_array_equal(a, b)


# --- what cannot be -------------------------------------------------------------------------------


def made(name, **options):
  return make_optimizer(9, 'config.optimizer.x', **{**to_plain(optimizer(name, 0.1)), **options})


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('adam', {}, r'config.optimizer.x.b2=0.999 moves an average by less than bfloat16 shows'),
    ('adamw', {'b1': 0.999, 'b2': 0.9}, r'config.optimizer.x.b1=0.999 .* at most 0.996'),
    ('momentum', {'momentum': 0.9999}, r'config.optimizer.x.momentum=0.9999'),
    ('adagrad', {}, r'state_dtype=bfloat16 is for states that are moving averages, and adagrad'),
  ],
)
def test_a_state_that_half_precision_cannot_hold_is_refused(name, options, message):
  made(name, **options)
  with pytest.raises(UserError, match=message):
    made(name, **options, state_dtype='bfloat16')


def test_a_narrow_average_of_the_largest_decay_still_forgets():
  """What the refusal is for: with a decay of 0.999 the mean of squares would stay where it is."""
  chain = made('adam', b2=0.996, state_dtype='bfloat16')
  params = {'w': jnp.ones(3)}
  state = chain.init(params)
  gradients = [1.0] * 50 + [0.0] * 400
  squares, update = [], jax.jit(chain.update)
  for step, size in enumerate(gradients):
    _, state = update({'w': jnp.full(3, size)}, state, params, jnp.int32(step))
    squares.append(float(jax.tree.leaves(state)[-1][0]))
  assert squares[49] > 0.1 and squares[-1] < 0.6 * squares[49]


@pytest.mark.parametrize('name', AVERAGING)
def test_every_optimizer_of_averages_takes_a_narrow_state(name):
  decays = {'b2': 0.95} if name not in ('lars', 'momentum', 'rmsprop', 'sgd') else {}
  if name == 'signum' or name == 'adan':
    decays = {}
  decays |= {'momentum': 0.9} if name in ('momentum', 'sgd', 'lars') else {}
  chain = made(name, **decays, state_dtype='bfloat16')
  params = {'w': jnp.ones((3, 4))}
  state = chain.init(params)
  updates, after = chain.update({'w': jnp.ones((3, 4))}, state, params, jnp.int32(0))
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
  assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [
    leaf.dtype for leaf in jax.tree.leaves(state)
  ]
  assert updates['w'].dtype == jnp.float32
  assert 'bfloat16' in {leaf.dtype.name for leaf in jax.tree.leaves(after)}


class _Memory:
  def __init__(self, kind):
    self.kind = kind


class _Device:
  """A device without the host's memory."""

  platform = 'toy'

  def addressable_memories(self):
    return [_Memory('unpinned_host'), _Memory('device')]


def test_offloading_where_the_devices_cannot_is_refused():
  one = {'x': Optimizer(None, None, None, offload=True)}
  host_memory.check_offload({'x': Optimizer(None, None, None)}, _Device(), 3)
  host_memory.check_offload(one, jax.devices()[0], 1)
  with pytest.raises(UserError, match=r'x.offload=True needs .* pinned_host, and a toy device'):
    host_memory.check_offload(one, _Device(), 1)
  config = config_with({'optimizer.model.offload': True, 'seeds': 2})
  with pytest.raises(UserError, match=r'offload=True moves the state of one .* are 2 lanes'):
    open_session(config, tiny.spec_for('gpt', '', config))


# --- compiler options -----------------------------------------------------------------------------


def test_options_that_hide_latency_are_of_their_platform():
  for platform in ('gpu', 'tpu'):
    assert runtime.compiler_options(platform) == {}
    assert runtime.compiler_options(platform, True) == runtime.LATENCY_HIDING[platform]
  assert runtime.compiler_options('cpu', True) == runtime.compiler_options('cpu')


def test_the_options_for_gpus_are_known_here_and_change_no_bit():
  """XLA's own options are known on every platform; those of TPUs only to libtpu."""
  x = jax.random.normal(jax.random.key(0), (64, 64))
  step = lambda x: jnp.tanh(x @ x).sum()  # noqa: E731
  options = runtime.compiler_options('gpu', True)
  assert jax.jit(step, compiler_options=options)(x) == jax.jit(step)(x)
  with pytest.raises(Exception, match='xla_gpu_enable_no_such'):
    jax.jit(step, compiler_options={'xla_gpu_enable_no_such': True})(x)
