"""`config.train.determinism`: all that computes figures or samples of a run is compiled with it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from commands import generate_text, render_samples
from configs import gan
from configs.defaults import examples, samples
from engine import run, runtime
from engine.evaluation import open_evaluators
from engine.preflight import lane_sampler
from engine.session import open_session
from engine.state import averaged_variables, weights
from errors import UserError
from tests.engine.test_program import opened
from tests.golden import tiny

KEY = jax.random.key(0)
PIXELS, FRECHET = dict(name='pixels.BlockMeans', side=2), dict(fd=dict(name='frechet'))


def gan_with(determinism):
  config = gan.get_config()
  config.data.batch_size = 8
  config.modules.generator.widths = config.modules.discriminator.widths = (8,)
  config.evaluators = {'test': examples(), 'samples': samples(PIXELS, FRECHET, samples=20)}
  config.train.determinism = determinism
  return config


def gpt_with(determinism):
  config = tiny.config_of('gpt', 'python_stdlib')
  config.train.determinism = determinism
  return config


def test_the_options_are_of_gpus_alone():
  for determinism in runtime.DETERMINISM:
    for platform in ('cpu', 'tpu'):
      assert runtime.determinism_options(platform, determinism) == {}
      plain = runtime.compiler_options(platform)
      assert runtime.compiler_options(platform, determinism=determinism) == plain
  assert runtime.compiler_options('gpu') == runtime.compiler_options('gpu', False, 'default') == {}
  kernels, full = (runtime.compiler_options('gpu', True, kind) for kind in ('kernels', 'full'))
  assert kernels['xla_gpu_exclude_nondeterministic_ops'] and full['xla_gpu_deterministic_ops']
  assert kernels.items() >= runtime.LATENCY_HIDING['gpu'].items() <= full.items()


@pytest.mark.parametrize('determinism', runtime.DETERMINISM)
def test_xla_knows_the_options_and_on_a_cpu_they_change_no_bit(determinism):
  x = jax.random.normal(KEY, (64, 64))
  step = lambda x: jnp.tanh(x @ x).sum()  # noqa: E731
  options = runtime.determinism_options('gpu', determinism)
  assert jax.jit(step, compiler_options=options)(x) == jax.jit(step)(x)


@pytest.fixture
def unknown(monkeypatch):
  """`full` stands for an option that XLA refuses: what was compiled with it is not compiled."""
  of_gpus = runtime.determinism_options

  def options(platform, determinism):
    return {'xla_gpu_no_such': True} if determinism == 'full' else of_gpus('gpu', determinism)

  monkeypatch.setattr(runtime, 'determinism_options', options)
  return pytest.raises(Exception, match='xla_gpu_no_such')


def test_training_evaluating_and_sampling_are_compiled_with_them(unknown):
  plain, exact = (open_session(gan_with(kind)) for kind in ('default', 'full'))
  state = plain.init()
  with unknown:
    exact.init()
  held, sampler = weights(state), lane_sampler(exact)
  with unknown:
    sampler.draw(held, 0)
  evaluators = open_evaluators(exact)
  with unknown:
    evaluators.evaluate('test', held, KEY)
  of_samples = evaluators._evaluators['samples']
  with unknown:
    variables = averaged_variables(held, plain.averages)
    of_samples._of_samples(of_samples._parameters, variables, KEY, np.int32(0))
  _, program, taken = opened(gan_with('full'), 'gan', 1)
  with unknown:
    program.dispatch(state, jnp.bool_(True), taken, jnp.int32(1), jnp.ones(1, bool))


def restored(session, variables, **options):
  """What sample.py has opened."""
  return SimpleNamespace(
    restored=SimpleNamespace(session=session), variables=variables, seed=0, options=options
  )


def test_samples_and_texts_of_a_run_are_compiled_with_them(unknown):
  session = open_session(gan_with('full'))
  variables = untrained(open_session(gan_with('default')))
  with unknown:
    next(render_samples.sample_chunks(restored(session, variables), 2))
  plain, exact = (
    open_session(config, tiny.spec_for('gpt', '', config))
    for config in map(gpt_with, ('default', 'full'))
  )
  words = dict(prompt='', length=4, temperature=1.0, top_k=0, top_p=1.0)
  row = np.zeros(1, np.int32), np.arange(1)
  program = generate_text._Program(restored(exact, untrained(plain), **words), 4)
  with unknown:
    next(program.growing(*row))
  program._start = jax.jit(plain.objective.sampler.start, static_argnums=4)
  with unknown:
    next(program.growing(*row))


def untrained(session):
  return averaged_variables(session.init(), session.averages)


def test_a_resumed_run_may_change_it_and_says_so(tmp_path):
  spec = tiny.spec('mnist5k')
  run.claim(str(tmp_path), gan_with('default'), spec)
  changed = run.claim(str(tmp_path), gan_with('kernels'), spec)
  assert changed == ['train.determinism: default → kernels']
  assert run.read_config(str(tmp_path))['train']['determinism'] == 'kernels'


def test_another_word_is_refused():
  with pytest.raises(UserError, match=r'config\.train\.determinism.*default, kernels, full'):
    open_session(gan_with('exact'))
