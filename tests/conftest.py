"""Flags parsed, caches of the session's own, and a way to run the root scripts.

Programs are compiled fast rather than well, and once for all workers and scripts: in tests arrays
are tiny and programs many. Without these settings the suite takes nearly twice as long.
"""

import importlib.util
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import fsspec
import pytest
from absl import flags

from tests.buckets import Bucket, Client, Endpoint

ROOT = Path(__file__).parents[1]


_XLA_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
# What tests expect of an accelerator as of a CPU: products in float32 (they are TF32's by default,
# or bfloat16's), and equal bits of what is computed twice. Processes run side by side on one GPU,
# of which jax would else give most to the first.
_EXACT_FLAGS = '--xla_gpu_deterministic_ops=true --xla_gpu_enable_scatter_determinism_expander=true'
_ON_ACCELERATORS = {
  'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
}


def on_accelerator(environ: Mapping[str, str] = os.environ) -> bool:
  """Whether jax will compute on another device than a CPU, as far as is known before it starts.

  Without JAX_PLATFORMS it does where a plugin is installed, such as that of `jax[cuda13]`. libtpu
  is not looked at: it is also the compiler of `plan.py`. Set JAX_PLATFORMS=tpu to test on a TPU.
  """
  if environ.get('JAX_PLATFORMS'):
    return environ['JAX_PLATFORMS'].split(',')[0] != 'cpu'
  plugins = importlib.util.find_spec('jax_plugins')
  places = plugins.submodule_search_locations if plugins else None
  return bool(places and [*pkgutil.iter_modules(places)])


def settings(shared: str) -> dict[str, str]:
  """What the environment of a test process holds before jax is imported.

  Flags of XLA that are there already win. `shared` is a folder for what is made once for all
  processes: compiled programs, unless $ATELIER_TESTS_COMPILED is a place to keep them in for the
  next time, and the runs of tests/golden/short_runs.py.
  """
  compiled = os.environ.get('ATELIER_TESTS_COMPILED') or f'{shared}/compiled'
  accelerated = on_accelerator()
  flags = f'{_XLA_FLAGS} {_EXACT_FLAGS}' if accelerated else _XLA_FLAGS
  return {
    **(_ON_ACCELERATORS if accelerated else {}),
    'ATELIER_TEST_RUNS': f'{shared}/runs',
    'JAX_COMPILATION_CACHE_DIR': compiled,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'XLA_FLAGS': f'{flags} {os.environ.get("XLA_FLAGS", "")}'.strip(),
  }


def pytest_configure(config):
  flags.FLAGS.mark_as_parsed()
  # The first process sets what its workers and the scripts inherit.
  if not hasattr(config, 'workerinput'):
    config.shared = tempfile.mkdtemp(prefix='atelier-tests-')
    os.environ.update(settings(config.shared))


# Where what trains comes from: a test module that has anything from there is marked `training`, and
# so are tests that run a script and folders whose tests compile whole networks and their gradients.
_TRAINERS = (
  'engine.lanes',
  'engine.loop',
  'engine.optimizers',
  'engine.program',
  'engine.step',
  'tests.conftest',  # the environment of another process
  'tests.golden.adapter',
  'tests.golden.short_runs',
  'tests.golden.tiny',
  'tests.runs',
  'tests.steps',
)
_FOLDERS = ('commands', 'models', 'objectives')


def pytest_collection_modifyitems(items):
  accelerated = on_accelerator()
  for item in items:
    of_a_cpu = item.get_closest_marker('cpu')
    if accelerated and of_a_cpu:
      reason = f'{of_a_cpu.args[0]}; JAX_PLATFORMS=cpu runs it'
      item.add_marker(pytest.mark.skip(reason=reason))
    if _trains(item):
      item.add_marker('training')
  # Files that start processes come first, then others that train: a long file that is begun last
  # would keep one worker busy while the other has nothing left.
  slowest = {item.path: 0 for item in items}
  for item in items:
    starts = 'script' in item.fixturenames
    rank = 2 if starts else 1 if item.get_closest_marker('training') else 0
    slowest[item.path] = max(slowest[item.path], rank)
  items.sort(key=lambda item: -slowest[item.path])


def _trains(item: pytest.Item) -> bool:
  origins = {
    getattr(value, '__name__' if isinstance(value, ModuleType) else '__module__', '')
    for value in vars(item.module).values()
  }
  return (
    not origins.isdisjoint(_TRAINERS)
    or 'script' in item.fixturenames
    or item.path.relative_to(ROOT / 'tests').parts[0] in _FOLDERS
  )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """By file; two that look at the same steps go to one process, where they are taken once."""
  from xdist.scheduler import LoadFileScheduling

  class ByFile(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
      return super()._split_scope(nodeid).replace('test_golden.py', 'test_configs.py')

  # By itself xdist begins with the files of most tests, which are the quick ones.
  config.option.loadscopereorder = False
  return ByFile(config, log) if config.getoption('dist') == 'loadfile' else None


def pytest_unconfigure(config):
  if hasattr(config, 'shared'):
    shutil.rmtree(config.shared, ignore_errors=True)


@pytest.fixture(scope='session', autouse=True)
def _own_cache(tmp_path_factory):
  """Nothing of the user's is read or written; all tests and scripts share what is made once."""
  before = os.environ.get('ATELIER_CACHE')
  os.environ['ATELIER_CACHE'] = str(tmp_path_factory.mktemp('cache'))
  yield
  if before is None:
    del os.environ['ATELIER_CACHE']
  else:
    os.environ['ATELIER_CACHE'] = before


def environment(devices: int = 1, **more: str) -> dict[str, str]:
  """What a script under test runs with; several devices are always those of a CPU."""
  several = {'JAX_PLATFORMS': 'cpu'} if devices > 1 else {}
  return {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), **several, **more}


@pytest.fixture
def script():
  """`script('train.py', '--config=…', devices=1)` runs it and returns the finished process."""

  def run(*arguments, devices: int = 1, timeout: float = 240, **more):
    return subprocess.run(
      [sys.executable, *map(str, arguments)],
      cwd=ROOT,
      env=environment(devices, **more),
      capture_output=True,
      text=True,
      timeout=timeout,
      stdin=subprocess.DEVNULL,
    )

  return run


@pytest.fixture(scope='session')
def endpoint():
  """Serves the pretended buckets to TensorStore too, which reads their address only once."""
  server = Endpoint()
  with pytest.MonkeyPatch.context() as patch:
    for name, value in server.environment.items():
      patch.setenv(name, value)
    yield server
  server.shutdown()
  server.server_close()


@pytest.fixture
def bucket_of_runs(bucket, endpoint, monkeypatch):
  """The `bucket`, open also to the clients that Orbax brings along."""
  import google.cloud

  storage = ModuleType('google.cloud.storage')
  storage.Client = Client
  monkeypatch.setitem(sys.modules, 'google.cloud.storage', storage)
  monkeypatch.setattr(google.cloud, 'storage', storage, raising=False)
  return bucket


@pytest.fixture
def bucket():
  """Puts a pretended Google Cloud Storage behind gs://; returns its class, with its `objects`."""
  for protocol in Bucket.protocol:
    fsspec.register_implementation(protocol, Bucket, clobber=True)
  for record in (Bucket.objects, Bucket.uploads, Bucket.downloads):
    record.clear()
  return Bucket
