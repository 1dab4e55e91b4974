"""Every figure is the same for any batch size, mesh and number of processes."""

import json
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment
from tests.engine.evaluators.write_figures import figures

SCRIPT = (sys.executable, '-m', 'tests.engine.evaluators.write_figures')


@pytest.fixture(scope='module')
def expected():
  """The figures on one device, in one batch."""
  found = figures(500, {})
  names = ('test/elbo', 'test/elbo ±', 'nll/nll', 'samples/fd_pixels4_101-train[:101]')
  assert set(names) <= found.keys()
  return found


def assert_same(found, expected):
  assert found == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize('batch_size', [7, 101])
def test_any_batch_size(expected, batch_size):
  assert_same(figures(batch_size, {}), expected)


def start(tmp_path, batch_size, mesh, *rest, devices, **more):
  """A process with a cache of its own, so that it computes the reference itself."""
  return subprocess.Popen(
    [*SCRIPT, str(tmp_path / 'out'), str(batch_size), mesh, *rest],
    cwd=ROOT,
    env=environment(devices, **more),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def results(tmp_path, processes):
  outputs = [process.communicate(timeout=240)[0] for process in processes]
  assert [process.returncode for process in processes] == [0] * len(processes), outputs
  return [json.loads((tmp_path / f'out.{i}').read_text()) for i in range(len(processes))]


@pytest.fixture
def own_references(tmp_path, monkeypatch):
  """Data sets are shared with the other tests, references are not."""
  from data.folders import cache_dir

  cache = tmp_path / 'cache'
  cache.mkdir()
  for shared in ('tfds', 'arrays'):
    (cache / shared).symlink_to(cache_dir() / shared)
  monkeypatch.setenv('ATELIER_CACHE', str(cache))
  return cache / 'references'


@pytest.mark.parametrize(
  'mesh', ['data:2,fsdp:2,tensor:2', pytest.param('data:4,lane:2', marks=pytest.mark.slow)]
)
def test_eight_devices(expected, tmp_path, own_references, mesh):
  (found,) = results(tmp_path, [start(tmp_path, 30, mesh, devices=8)])
  assert_same(found, expected)
  assert len(list(own_references.iterdir())) == 1


@pytest.mark.parametrize('mesh', ['data:4', pytest.param('tensor:4', marks=pytest.mark.slow)])
def test_two_processes(expected, tmp_path, own_references, mesh):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  processes = [
    start(
      tmp_path, 30, f'data:1,{mesh}' if 'data' not in mesh else mesh, 'distributed', devices=2,
      JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2', JAX_PROCESS_ID=str(i),
    )
    for i in range(2)
  ]  # fmt: skip
  for found in results(tmp_path, processes):
    assert_same(found, expected)
  assert len(list(own_references.iterdir())) == 1
