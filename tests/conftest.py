"""Flags parsed, caches of the session's own, and a way to run the root scripts.

Programs are compiled fast rather than well, and once for all workers and scripts: in tests arrays
are tiny and programs many. Without these settings the suite takes nearly twice as long.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import pytest
from absl import flags

from tests.buckets import Bucket

ROOT = Path(__file__).parents[1]


_XLA_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'


def pytest_configure(config):
  flags.FLAGS.mark_as_parsed()
  # The first process sets what its workers and the scripts inherit.
  if not hasattr(config, 'workerinput'):
    config.compiled = tempfile.mkdtemp(prefix='atelier-tests-')
    os.environ['JAX_COMPILATION_CACHE_DIR'] = config.compiled
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_XLA_FLAGS}'.strip()


def pytest_unconfigure(config):
  if hasattr(config, 'compiled'):
    shutil.rmtree(config.compiled, ignore_errors=True)


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
  """What a script under test runs with."""
  return {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), **more}


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


@pytest.fixture
def bucket():
  """Puts a pretended Google Cloud Storage behind gs://; returns its class, with its `objects`."""
  for protocol in Bucket.protocol:
    fsspec.register_implementation(protocol, Bucket, clobber=True)
  for record in (Bucket.objects, Bucket.uploads, Bucket.downloads):
    record.clear()
  return Bucket
