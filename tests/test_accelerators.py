"""How this suite is set up where jax has an accelerator."""

import importlib.util
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from tests import conftest


@pytest.mark.parametrize(
  ('chosen', 'plugins', 'expected'),
  [
    (None, (), False),
    ('', ('xla_cuda13',), True),
    (None, ('xla_cuda13',), True),
    ('cpu', ('xla_cuda13',), False),
    ('cuda', (), True),
    ('cuda,cpu', (), True),
    ('tpu', (), True),
  ],
)
def test_an_accelerator_is_chosen_or_its_plugin_is_installed(
  chosen, plugins, expected, monkeypatch, tmp_path
):
  for name in plugins:
    (tmp_path / f'{name}.py').touch()
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]) if plugins else None,
  )
  environ = {} if chosen is None else {'JAX_PLATFORMS': chosen}
  assert conftest.on_accelerator(environ) == expected


def test_an_accelerator_computes_in_float32_and_repeats_every_bit(monkeypatch):
  before = conftest.settings('shared')
  for platform in ('cpu', 'cuda'):
    monkeypatch.setenv('JAX_PLATFORMS', platform)
    monkeypatch.setenv('XLA_FLAGS', '--xla_of_the_user=1')
    made = conftest.settings('shared')
    flags = made.pop('XLA_FLAGS')
    assert flags.endswith(' --xla_of_the_user=1')
    assert ('--xla_gpu_deterministic_ops=true' in flags) == (platform == 'cuda')
    more = {name: value for name, value in made.items() if name not in before}
    on_gpu = {'JAX_DEFAULT_MATMUL_PRECISION': 'highest', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    assert more == (on_gpu if platform == 'cuda' else {})


def test_the_precision_changes_no_bit_on_a_cpu():
  x = jax.random.normal(jax.random.key(0), (65, 65))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 5, 4))

  def computed():
    image = x[None, :, :, None] * jnp.ones(5)
    numbers = ('NHWC', 'HWIO', 'NHWC')
    made = jax.lax.conv_general_dilated(image, kernel, (1, 1), 'SAME', dimension_numbers=numbers)
    return jnp.tanh(x @ x) @ x, made

  plain = jax.jit(computed)()
  with jax.default_matmul_precision('highest'):
    highest = jax.jit(lambda: computed())()
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, highest))


def test_what_holds_on_a_cpu_alone_is_skipped_and_says_why(script):
  file = 'tests/models/kernels/test_max_pool.py'
  done = script('-m', 'pytest', file, '-rs', '-p', 'no:cacheprovider', JAX_PLATFORMS='cuda')
  assert done.returncode == 0, done.stdout + done.stderr
  reason = "the gradient of linen's has no deterministic form on a GPU; JAX_PLATFORMS=cpu runs it"
  assert f'SKIPPED [3] {file}' in done.stdout and reason in done.stdout


def test_several_devices_are_those_of_a_cpu(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  assert conftest.environment()['JAX_PLATFORMS'] == 'cuda'
  assert conftest.environment(4) == {
    **os.environ,
    'JAX_NUM_CPU_DEVICES': '4',
    'JAX_PLATFORMS': 'cpu',
  }
