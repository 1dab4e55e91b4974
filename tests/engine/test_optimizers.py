import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.defaults import optimizer
from engine.build import to_plain
from engine.optimizers import make_optimizer, optimizers, section_options
from errors import UserError
from options import REQUIRED


def one_update(weights, gradients, **options):
  section = to_plain(optimizer('sgd', 0.1))
  schedule = {**section['schedule'], **options.pop('schedule', {})}
  chain = make_optimizer(100, 'config.optimizer.x', **{**section, **options, 'schedule': schedule})
  params = {'m': {'w': jnp.array(weights)}}
  updates, _ = chain.update(
    {'m': {'w': jnp.array(gradients)}}, chain.init(params), params, jnp.int32(0)
  )
  return np.asarray(params['m']['w'] + updates['m']['w']), chain


def test_plain_sgd():
  after, _ = one_update([1.0, -2.0], [0.5, 1.0])
  np.testing.assert_allclose(after, [0.95, -2.1], rtol=1e-6)


def test_clip_is_by_the_global_norm():
  after, _ = one_update([0.0, 0.0], [3.0, 4.0], clip=1.0)
  np.testing.assert_allclose(after, [-0.06, -0.08], rtol=1e-6)


def test_l2_and_l1_enter_the_gradient():
  after, _ = one_update([1.0, -2.0], [0.0, 0.0], weight_decay=0.5)
  np.testing.assert_allclose(after, [0.95, -1.9], rtol=1e-6)
  after, _ = one_update([1.0, -2.0], [0.0, 0.0], l1=0.5)
  np.testing.assert_allclose(after, [0.95, -1.95], rtol=1e-6)


def test_adamw_takes_the_weight_decay_itself():
  # Decoupled: with no gradient the weight shrinks by rate × decay; L2 inside Adam would move it
  # by about the whole rate.
  after, _ = one_update([1.0], [0.0], name='adamw', weight_decay=0.5)
  np.testing.assert_allclose(after, [0.95], rtol=1e-5)


@pytest.mark.parametrize('name, after', [('sgd', 0.95), ('adamw', 0.95)])
def test_only_chosen_parameters_decay(name, after):
  section = {**to_plain(optimizer(name, 0.1)), 'weight_decay': 0.5, 'decay_only': 'kernel$'}
  chain = make_optimizer(100, 'config.optimizer.x', **section)
  params = {'m': {'kernel': jnp.ones(1), 'kernel_scale': jnp.ones(1)}}
  updates, _ = chain.update(
    {'m': {k: jnp.zeros(1) for k in params['m']}}, chain.init(params), params, jnp.int32(0)
  )
  assert float(1 + updates['m']['kernel'][0]) == pytest.approx(after)
  assert float(updates['m']['kernel_scale'][0]) == 0


def test_a_pattern_that_fits_no_parameter_is_refused():
  section = {**to_plain(optimizer('adamw', 0.1)), 'weight_decay': 0.5, 'decay_only': 'kernels'}
  chain = make_optimizer(100, 'config.optimizer.x', **section)
  with pytest.raises(UserError, match='decay_only=kernels is found in no parameter'):
    chain.init({'m': {'kernel': jnp.ones(1)}})
  with pytest.raises(UserError, match='no regular expression'):
    make_optimizer(100, 'config.optimizer.x', **{**section, 'decay_only': '('})


def test_weights_are_clipped_after_the_update():
  after, _ = one_update([0.5, -0.5, 0.001], [-1.0, 1.0, 0.0], clip_weights=0.01)
  np.testing.assert_allclose(after, [0.01, -0.01, 0.001], atol=1e-7)


@pytest.mark.parametrize(
  'schedule, wanted',
  [
    (dict(name='constant'), {0: 0.1, 99: 0.1}),
    (dict(name='cosine', end=0.1), {0: 0.1, 50: 0.055, 100: 0.01}),
    (dict(name='exponential', end=0.01), {0: 0.1, 50: 0.01, 100: 0.001}),
    (
      dict(name='piecewise', boundaries=(10, 20), factors=(0.5, 0.1)),
      {9: 0.1, 10: 0.05, 19: 0.05, 20: 0.01},
    ),
    (dict(name='constant', warmup=10), {0: 0.0, 5: 0.05, 10: 0.1, 99: 0.1}),
  ],
)
def test_schedules(schedule, wanted):
  _, chain = one_update([1.0], [1.0], schedule=schedule)
  for step, rate in wanted.items():
    np.testing.assert_allclose(chain.rate(jnp.int32(step)), rate, rtol=1e-5, atol=1e-9)


# Their first steps are smaller than a float32's precision beside 1: they start at an estimate.
CAUTIOUS = ('dadapt_adamw', 'dog', 'prodigy')


@pytest.mark.parametrize('name', sorted({*optimizers(), 'momentum'} - {*CAUTIOUS}))
def test_every_optimizer_that_is_listed_moves_by_the_rate(name):
  """In a compiled step, with the rate of that step."""
  own = {'momentum': 0.9} if name == 'momentum' else {}
  section = {**to_plain(optimizer(name, 0.1)), **own}
  section['schedule'] = dict(section['schedule'], name='cosine')
  chain = make_optimizer(100, 'config.optimizer.x', **section)
  before = {'m': {'w': jnp.array([[1.0, 2.0], [3.0, 4.0]])}}
  gradients = {'m': {'w': jnp.array([[1.0, -1.0], [0.5, 2.0]])}}

  def moved(step):
    """By two updates: some only look at the first gradient."""
    update, state = jax.jit(chain.update), chain.init(before)
    _, state = update(gradients, state, before, step)
    return np.asarray(update(gradients, state, before, step)[0]['m']['w'])

  first, halfway = moved(0), moved(50)
  assert np.isfinite(first).all() and np.abs(first).max() > 1e-6
  np.testing.assert_allclose(np.abs(halfway).max() / np.abs(first).max(), 0.5, rtol=0.35)


@pytest.mark.parametrize('name', sorted(optimizers()))
def test_every_option_of_an_optimizer_is_declared_with_a_default_in_its_range(name):
  declared = section_options({'name': name}, 'x')
  for key, option in declared.items():
    assert option.doc.endswith('.'), key
    if option.default is not REQUIRED:
      option.check(option.default, key)
  own = {key for key, option in declared.items() if option.default is not REQUIRED}
  values = {key: declared[key].default for key in own if declared[key].default is not None}
  values |= {'momentum': 0.9} if name == 'momentum' else {}
  make_optimizer(10, 'x', **{**to_plain(optimizer(name, 0.1)), **values}).init({'w': jnp.ones(2)})


def test_momentum_by_name():
  after, _ = one_update([1.0], [1.0], name='momentum', momentum=0.9)
  np.testing.assert_allclose(after, [0.9], rtol=1e-6)


@pytest.mark.parametrize(
  'options, part',
  [
    (dict(name='adm'), 'did you mean "adam"'),
    (dict(name='lbfgs'), r'x\.name=lbfgs is no optimizer'),
    (dict(name='rprop'), r'x\.name=rprop is no optimizer'),
    (dict(name='ScaleByZoomLinesearchState'), 'is no optimizer'),
    (dict(name='schedule_free'), 'is no optimizer'),
    (dict(name='adam', beta=0.5), r'x\.beta is no option of the optimizer adam'),
    (dict(name='adam', mask=True), r'x\.mask is no option of the optimizer adam'),
    (dict(name='adam', b1=1.0), r'x\.b1=1\.0 must be at least 0 and below 1'),
    (dict(name='adam', eps=-1e-8), r'x\.eps=-1e-08 must be at least 0'),
    (dict(name='adam', eps=None), r'x\.eps=None must be a number'),
    (dict(name='sgd', momentum=-0.5), r'x\.momentum=-0\.5 must be at least 0 and below 1'),
    (dict(name='sgd', nesterov='yes'), r'x\.nesterov=yes must be True or False'),
    (dict(name='momentum'), r'x\.momentum is missing'),
    (dict(name='muon', beta=2), r'x\.beta=2 must be at least 0 and below 1'),
    (dict(name=None), r'x\.name=None must be a word'),
    (dict(clip=-1), r'x\.clip=-1 must be at least 0'),
    (dict(weight_decay=-0.1), r'x\.weight_decay=-0\.1 must be at least 0'),
    (dict(l1=float('nan')), r'x\.l1=nan must be a finite number'),
    (dict(clip_weights=float('inf')), r'x\.clip_weights=inf must be a finite number'),
    (dict(learning_rate=float('nan')), r'x\.learning_rate=nan must be a finite number'),
    (dict(decay_only=3), r'x\.decay_only=3 must be a word'),
    (dict(decay_only='kernel$'), r'x\.decay_only=kernel\$ has no effect without .*weight_decay'),
    (
      dict(schedule=dict(name='cosine', boundaries=(3,), factors=(1,))),
      r'schedule\.boundaries=3 has no effect with .*schedule\.name=cosine',
    ),
    (dict(schedule=dict(warmup=-1)), r'schedule\.warmup=-1 must be at least 0'),
    (dict(schedule=dict(end=1.5)), r'schedule\.end=1\.5 must be at least 0 and at most 1'),
    (dict(schedule=dict(cycles=2)), r'schedule\.cycles is no option of the schedule'),
    (
      dict(schedule=dict(name='piecewise', boundaries=(9, 3), factors=(1, 2))),
      r'schedule\.boundaries=9,3 must ascend',
    ),
    (
      dict(schedule=dict(name='piecewise', boundaries=(3,), factors=(-1,))),
      r'schedule\.factors=-1: -1 must be at least 0',
    ),
    (dict(name='galore'), r'x\.name=galore is no optimizer'),
    (
      dict(name='muon', matrices='['),
      r'config\.optimizer\.x\.matrices=\[ is no regular expression',
    ),
    (dict(schedule=dict(name='cosin')), 'did you mean "cosine"'),
    (dict(schedule=dict(warmup=100)), 'below the 100 steps'),
    (dict(schedule=dict(name='exponential')), 'above 0'),
    (dict(learning_rate=-1.0), r'x\.learning_rate=-1\.0 must be at least 0'),
  ],
)
def test_mistakes_are_named(options, part):
  with pytest.raises(UserError, match=part):
    one_update([1.0], [1.0], **options)


def muon_update(params, gradients, **options):
  section = to_plain(optimizer('muon', 0.1, **options))
  chain = make_optimizer(100, 'config.optimizer.x', **section)
  params = {'m': {name: jnp.asarray(value) for name, value in params.items()}}
  gradients = {'m': {name: jnp.asarray(value) for name, value in gradients.items()}}
  updates, _ = chain.update(gradients, chain.init(params), params, jnp.int32(0))
  return {name: np.asarray(value) for name, value in updates['m'].items()}


def normal(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_muon_moves_a_matrix_by_an_orthogonal_one():
  moved = muon_update({'kernel': np.zeros((8, 4))}, {'kernel': normal(8, 4)})['kernel']
  # Five steps of Newton and Schulz leave singular values about 1 (Jordan et al. 2024).
  singular = np.linalg.svd(moved / 0.1, compute_uv=False)
  assert singular.min() > 0.6 and singular.max() < 1.3
  u, _, v = np.linalg.svd(normal(8, 4), full_matrices=False)
  assert np.sum(moved * (u @ v)) < -0.95 * np.linalg.norm(moved) * np.linalg.norm(u @ v)


def test_muon_takes_a_convolution_for_a_matrix_and_a_stack_for_many():
  gradient = normal(3, 3, 2, 4)
  flat = muon_update({'kernel': np.zeros((18, 4))}, {'kernel': gradient.reshape(18, 4)})['kernel']
  kernel = muon_update({'kernel': np.zeros_like(gradient)}, {'kernel': gradient})['kernel']
  np.testing.assert_allclose(kernel, flat.reshape(kernel.shape), atol=1e-6)
  gradient = normal(2, 6, 4)
  stack = muon_update({'kernel': np.zeros_like(gradient)}, {'kernel': gradient})['kernel']
  for layer, moved in zip(gradient, stack):
    alone = muon_update({'kernel': np.zeros_like(layer)}, {'kernel': layer})['kernel']
    np.testing.assert_allclose(moved, alone, atol=1e-6)


def test_muon_leaves_the_rest_to_nadam():
  params = {'kernel': np.ones((4, 4)), 'bias': np.ones(4), 'embedding': np.ones((4, 4))}
  gradients = {'kernel': normal(4, 4), 'bias': normal(4), 'embedding': 2 * normal(4, 4)}
  nadam = optax.nadam(0.05)
  wanted, _ = nadam.update(gradients, nadam.init(params), params)
  plain = muon_update(params, gradients, matrices='kernel', adam_factor=0.5)
  np.testing.assert_allclose(plain['bias'], wanted['bias'], rtol=1e-5)
  np.testing.assert_allclose(plain['embedding'], wanted['embedding'], rtol=1e-5)
  assert np.abs(plain['kernel'] - wanted['kernel']).max() > 0.01
  decayed = muon_update(params, gradients, matrices='kernel', adam_factor=0.5, weight_decay=0.3)
  np.testing.assert_allclose(decayed['kernel'], plain['kernel'] - 0.1 * 0.3, atol=1e-6)
  np.testing.assert_array_equal(decayed['bias'], plain['bias'])
  np.testing.assert_array_equal(decayed['embedding'], plain['embedding'])


def test_muon_takes_all_matrices_if_not_told_which():
  params = {'embedding': np.ones((4, 4)), 'kernel': np.ones((4, 4))}
  gradients = {'embedding': normal(4, 4), 'kernel': normal(4, 4)}
  moved = muon_update(params, gradients)
  np.testing.assert_array_equal(moved['embedding'], moved['kernel'])
  with pytest.raises(UserError, match=r'matrices=conv is found in no parameter'):
    muon_update(params, gradients, matrices='conv')


def test_a_pattern_that_an_optimizer_cannot_follow_is_refused():
  section = {**to_plain(optimizer('novograd', 0.1)), 'decay_only': 'kernel$'}
  with pytest.raises(UserError, match=r'decay_only=kernel. has no effect: novograd decays all'):
    make_optimizer(100, 'config.optimizer.x', **section)
