"""Flags parsed, a cache of the session's own, and a way to run the root scripts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

ROOT = Path(__file__).parents[1]


def pytest_configure(config):
  flags.FLAGS.mark_as_parsed()


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
