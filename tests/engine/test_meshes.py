"""Every config trains split over a mesh as on one device, and each device holds its share of it."""

import functools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from engine.sharding import SMALLEST_SPLIT
from tests.conftest import ROOT, environment
from tests.engine import mesh_steps
from tests.golden.tiny import CONFIGS
from tests.marks import slow_where

EVERY_AXIS = {'data': 2, 'fsdp': 2, 'tensor': 2}
FSDP = {'data': 1, 'fsdp': 8}
# One config a family, with the largest share of its parameters, optimizer and averages that stays
# whole: biases, scales and small kernels.
FAMILIES = {
  'gan': 0.002,
  'dcgan': 0.001,
  'cgan': 0.002,
  'vae': 0.001,
  'conv_vae': 0.002,
  'vqvae': 0.01,
  'cnn': 0.001,
  'rnn': 0.01,
  'gpt': 0.004,
  'bert': 0.025,
}
OTHERS = [name for name in CONFIGS if name not in FAMILIES]


@pytest.fixture(scope='module')
def on_eight(tmp_path_factory):
  """`on_eight(mesh, names)` trains these configs, in one process of eight devices."""

  @functools.cache
  def trained(mesh, names):
    out = tmp_path_factory.mktemp('meshes') / 'steps.json'
    command = ['-m', 'tests.engine.mesh_steps', str(out), json.dumps(dict(mesh)), *names]
    done = subprocess.run(
      [sys.executable, *command], cwd=ROOT, env=environment(8), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return mesh_steps.read(out)

  return lambda mesh, names: trained((*mesh.items(),), tuple(names))


@functools.cache
def alone(name):
  return mesh_steps.first_steps(name, {})


def assert_equal(one, split):
  """The same losses and running statistics, up to the order of sums."""
  assert [*one.losses] == [*split.losses] and [*one.statistics] == [*split.statistics]
  for i, (player, losses) in enumerate(one.losses.items()):
    first, _, third = split.losses[player]
    # A second player sees parameters that the first has moved, and Adam moves by its learning rate
    # what has a gradient of rounding errors alone, as a bias before a batch norm.
    assert first == pytest.approx(losses[0], rel=1e-4 if i else 1e-5), player
    assert third == pytest.approx(losses[2], rel=1e-3), player
  for path, values in one.statistics.items():
    np.testing.assert_allclose(split.statistics[path], values, 1e-4, 1e-5, err_msg=path)


def assert_split(steps, ways, largest_whole_share):
  """Whatever is large and divides is split, and what stays whole is a small share of all."""
  leaves = steps.leaves
  # XLA counts the same bytes as the shardings of the compiled program give.
  held = sum(leaf.here for leaf in leaves.values())
  assert steps.arguments == held + steps.others
  whole = {path: leaf for path, leaf in leaves.items() if leaf.here == leaf.whole}
  for path, leaf in whole.items():
    if 'batch_stats' in path:  # running statistics stay whole
      continue
    indivisible = all(size % ways for size in leaf.shape)
    assert indivisible or math.prod(leaf.shape) < SMALLEST_SPLIT, (path, leaf)
  for path, leaf in leaves.items():
    assert path in whole or leaf.here * ways <= leaf.whole, (path, leaf)
  total, kept = (sum(leaf.whole for leaf in each.values()) for each in (leaves, whole))
  assert held <= (total - kept) / ways + kept
  assert kept <= largest_whole_share * total, f'{kept} of {total} bytes stay whole'


@pytest.mark.parametrize('name', FAMILIES)
def test_a_family_on_every_axis(name, on_eight):
  split = on_eight(EVERY_AXIS, FAMILIES)[name]
  assert_equal(alone(name), split)
  assert_split(split, 2, FAMILIES[name])


@pytest.mark.parametrize('name', slow_where(lambda name: name not in ('gan', 'gpt'), FAMILIES))
def test_each_of_eight_devices_holds_an_eighth(name, on_eight, request):
  names = FAMILIES if request.node.get_closest_marker('slow') else ('gan', 'gpt')
  split = on_eight(FSDP, names)[name]
  assert_equal(alone(name), split)
  assert_split(split, 8, FAMILIES[name])


@pytest.mark.slow
@pytest.mark.parametrize('mesh', [EVERY_AXIS, FSDP], ids=['every axis', 'fsdp'])
@pytest.mark.parametrize('name', OTHERS)
def test_every_other_config(name, mesh, on_eight):
  split = on_eight(mesh, OTHERS)[name]
  assert_equal(alone(name), split)
  assert_split(split, mesh['fsdp'], 0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
  'mesh',
  [{'data': 1, 'fsdp': 8}, {'data': 1, 'fsdp': 64}, {'data': 4, 'fsdp': 64}],
  ids=['8', '64', '256'],
)
def test_the_largest_gpt2_compiles_for_many_devices(mesh, tmp_path):
  out, devices = tmp_path / 'bytes.json', mesh['data'] * mesh['fsdp']
  command = ['-m', 'tests.engine.compile_gpt2', str(out), '1558m', '512', json.dumps(mesh)]
  done = subprocess.run(
    [sys.executable, *command], cwd=ROOT, env=environment(devices), capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())
  # Parameters and two moments of 4 bytes each.
  assert 1.55e9 < found['whole'] / 12 < 1.6e9
  assert found['here'] == pytest.approx(found['whole'] / mesh['fsdp'], rel=0.02)
