"""Rules place parameters and what belongs to them; mistakes name the parameter."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from configs.defaults import defaults
from engine.sharding import AXES, check_batch, make_mesh, path_name, state_shardings
from engine.state import State
from errors import UserError
from tests.conftest import ROOT, environment

RULES = (('hidden_[01]/kernel', ('fsdp', 'tensor')), ('generator/output/kernel', (None, 'tensor')))

# Trains the small GAN for three steps with rules on whatever devices there are, and prints what
# came out and where the parameters lie.
PROGRAM = """
import json, sys
from engine import runtime
runtime.prepare()
import jax, numpy as np
from absl import flags
flags.FLAGS.mark_as_parsed()
from benchmarks.stepper import Stepper
from configs.defaults import optimizer
from commands import cli
config = cli.load('configs/gan.py')
for module in config.modules.values():
  module.widths = (32, 16)
# Its unit more would be one that no two devices share evenly.
config.modules.discriminator.minibatch_stddev = 0
config.data.batch_size = 16
config.mesh, config.sharding = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for name, options in json.loads(sys.argv[3]).items():
  for player in config.optimizer:
    config.optimizer[player] = optimizer(name, **options)
stepper = Stepper(config)
losses = stepper.run(3)
state = stepper.state
def describe(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): list(leaf.sharding.spec) for path, leaf in leaves}
kernels = {module: state.params[module]['hidden_0']['kernel'] for module in state.params}
totals = {module: float(np.abs(np.asarray(kernel)).sum()) for module, kernel in kernels.items()}
discriminator = state.params['discriminator'], state.opt_state['discriminator']
print(json.dumps([losses, totals, *map(describe, discriminator), describe(state.ema)]))
"""


def trained(devices, mesh, rules, optimizer):
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, *map(json.dumps, (mesh, rules, optimizer))],
    cwd=ROOT,
    env=environment(devices),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


# Muon's products are of whole matrices, which no device has; it keeps one moment, Adam two.
MUON = {'muon': dict(learning_rate=0.002, matrices='kernel')}


@pytest.mark.parametrize(
  'optimizer, moments_kept', [({}, 2), pytest.param(MUON, 1, marks=pytest.mark.slow)]
)
def test_split_parameters_train_like_whole_ones(optimizer, moments_kept):
  losses, totals, *_ = trained(1, dict(lane=1, data=1, fsdp=1, tensor=1), (), optimizer)
  split = trained(8, dict(lane=1, data=2, fsdp=2, tensor=2), RULES, optimizer)
  for name in losses:
    np.testing.assert_allclose(losses[name], split[0][name], rtol=1e-4)
  for name in totals:
    np.testing.assert_allclose(totals[name], split[1][name], rtol=1e-4)
  _, _, params, statistics, averages = split
  wanted = ['fsdp', 'tensor']
  assert params["['hidden_0']['kernel']"] == wanted
  assert params["['hidden_0']['bias']"] == []
  moments = [spec for path, spec in statistics.items() if "hidden_0']['kernel" in path]
  assert moments == [wanted] * moments_kept
  assert averages["['generator']['params']['hidden_1']['kernel']"] == wanted


def abstract(*shape):
  """The shapes of a state with a parameter of this shape, its moment and its average."""
  tree = {'model': {'dense': {'kernel': jax.ShapeDtypeStruct(shape, np.float32)}}}
  average = {'best': {'params': tree['model']}}
  one = jax.ShapeDtypeStruct((), np.int32)
  return State(one, tree, {'model': {}}, {'model': {'mu': tree, 'count': one}}, average, one)


def spec_of(shape, rules, **sizes):
  mesh = AbstractMesh(tuple(sizes.get(axis, 1) for axis in AXES), AXES)
  placed = state_shardings(abstract(*shape), {'best': 'model'}, rules, mesh)
  specs = {leaf.spec for leaf in jax.tree.leaves((placed.params, placed.opt_state['model']['mu']))}
  assert specs == {leaf.spec for leaf in jax.tree.leaves(placed.ema)} and len(specs) == 1
  assert placed.step.spec == placed.opt_state['model']['count'].spec == P()
  return specs.pop()


@pytest.mark.parametrize(
  ('shape', 'split'),
  [
    ((784, 1024), P(None, 'fsdp')),
    ((1024, 784), P('fsdp')),
    ((512, 512), P(None, 'fsdp')),
    ((4, 4, 256, 64), P(None, None, 'fsdp')),
    ((1022, 24), P(None, 'fsdp')),  # 8 does not divide the largest
    ((1001, 13), P()),
    ((1024,), P('fsdp')),
    ((1023,), P()),
    ((16, 32), P()),  # too small
    ((), P()),
  ],
)
def test_the_rule_of_every_config_splits_the_largest_axis_that_divides(shape, split):
  rules = defaults().sharding
  assert spec_of(shape, rules, fsdp=8) == spec_of(shape, rules, fsdp=8, tensor=2) == split
  # As without any rule: the compiled program is the same.
  assert spec_of(shape, rules, data=8) == spec_of(shape, (), data=8) == P()


def test_the_first_rule_that_matches_counts():
  split, whole = ('kernel', ('fsdp',)), ('.*', ())
  assert spec_of((64, 1024), (split, *defaults().sharding), fsdp=8) == P('fsdp')
  assert spec_of((64, 1024), (whole, *defaults().sharding), fsdp=8) == P()
  assert spec_of((64, 1024), (('.*', 'tensor'),), fsdp=2, tensor=4) == P(None, 'tensor')


@pytest.mark.parametrize(
  'rule, part',
  [
    ((('kernel', ('model',)),), 'no mesh axis "model"'),
    ((('kernel', (None, None, 'fsdp')),), 'more axes than the parameter'),
    ((('kernel', ('fsdp',)),), '6 is not divisible by the 4 devices of fsdp; choose sizes of '),
    (
      (('kernel', (None, ('fsdp', 'tensor'))),),
      'the 8 devices of fsdp × tensor; choose sizes of config.mesh.fsdp and config.mesh.tensor',
    ),
  ],
)
def test_a_bad_rule_names_the_parameter(rule, part):
  with pytest.raises(UserError, match=f'model/dense/kernel.*{part}'):
    spec_of((6, 4), rule, fsdp=4, tensor=2)


def test_a_mesh_must_fit_the_devices():
  with pytest.raises(UserError, match='1 × 1 × 7 × 1'):
    make_mesh(lane=1, data=1, fsdp=7, tensor=1)
  with pytest.raises(UserError, match='make the product'):
    make_mesh(lane=1, data=-1, fsdp=-1, tensor=1)


def test_a_batch_must_split():
  mesh = make_mesh(lane=1, data=-1, fsdp=1, tensor=1)
  check_batch(12, 3, mesh)
  with pytest.raises(UserError, match='multiple of 5'):
    check_batch(12, 5, mesh)


def test_path_names():
  tree = {'a': [1, {'b': 2}]}
  names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  assert names == ['a/0', 'a/1/b']
