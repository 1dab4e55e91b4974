"""Parameters, memory and operations of a plan, against the run itself and counts by hand."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from commands.config_flags import complete_init_from
from data.feed import Described
from engine.feeds import describe_feed, open_feed
from engine.planning.estimate import WORK, make_plan, state_bytes
from engine.program import make_program, trace_step
from engine.session import open_session
from tests import runs
from tests.conftest import ROOT, environment
from tests.engine.test_module_errors import SPEC, config_of
from tests.golden import tiny
from tests.marks import slow_where


def planned(config, spec=SPEC):
  complete_init_from(config)
  session = open_session(config, spec)
  feed = Described(session.spec, session.per_step, session.mesh)
  return make_plan(session, feed, trace_step(session)), session


@pytest.mark.parametrize('name', slow_where(lambda name: name in tiny.SLOW, tiny.CONFIGS))
def test_every_config_is_planned_and_its_state_is_counted_exactly(name):
  config = tiny.config_for(name)
  config.train.epochs = 0.0
  data = tiny.TEXT.get(name, tiny.ARGUMENTS.get(name, ('mnist5k',))[0])
  plan, session = planned(config, tiny.spec_for(name, data, config))
  state = session.init()
  held = {
    'parameters': state.params,
    'optimizer state': state.opt_state,
    'averages (ema)': state.ema,
  }
  for part, tree in held.items():
    assert plan.memory[part] == sum(leaf.nbytes for leaf in jax.tree.leaves(tree)), part
  assert plan.flops > 0 and plan.recomputed == 0 and plan.memory[WORK] > 0
  assert plan.collectives == () and plan.devices == 1
  assert plan.examples == session.per_step


def test_the_state_is_what_a_device_then_holds():
  config = config_of('mlp', model__widths=(64,))
  session = open_session(config, SPEC)
  parameters = 784 * 64 + 64 + 64 * 10 + 10
  found = state_bytes(session)
  assert found['parameters'] == 4 * parameters
  # Adam has two numbers for each, and a counter.
  assert found['optimizer state'] == 2 * 4 * parameters + 4


@pytest.mark.parametrize('resident_mb', [0, 2048])
def test_the_peak_is_that_of_the_program_that_trains(resident_mb):
  config = runs.small(config_of('mlp'))
  config.data.resident_mb = resident_mb
  complete_init_from(config)
  session = open_session(config)
  traced = trace_step(session)
  plan = make_plan(session, describe_feed(session), traced)
  feed = open_feed(session, 0)
  try:
    _, taken = feed.take(0, 1)
    program = make_program(session, feed, traced).dispatch.lower(
      session.abstract, np.bool_(True), taken, np.int32(1), np.ones(1, bool)
    )
    needed = program.compile().memory_analysis()
  finally:
    feed.close()
  peak = needed.argument_size_in_bytes + needed.temp_size_in_bytes
  assert plan.peak == pytest.approx(peak, rel=0.1)
  assert (plan.memory['data'] > 10**6) == (resident_mb > 0)


def test_operations_of_a_dense_network_by_hand():
  config = config_of('mlp', model__widths=(64, 32))
  config.data.batch_size = 16
  products = [784 * 64, 64 * 32, 32 * 10]
  # Forward, and backward to every kernel and to all but the images.
  assert planned(config)[0].flops == 2 * 16 * (3 * sum(products) - products[0])


@pytest.mark.parametrize('every', [1, 4])
def test_operations_of_a_dense_gan_with_its_penalty_by_hand(every):
  config = config_of('gan')
  config.data.batch_size = 16
  config.objective.penalty_every = every
  config.modules.discriminator.minibatch_stddev = 0
  up, down = (256, 512, 1024), (1024, 512, 256)
  made = [a * b for a, b in zip((100, *up), (*up, 784))]
  scored = [a * b for a, b in zip((784, *down), (*down, 1))]
  g, d = sum(made), sum(scored)
  discriminator = g + 2 * (3 * d - scored[0])  # generated images have no gradient here
  # R1: forward, the gradient at the images, and of that at the kernels; its first factor is one.
  penalty = 4 * d - scored[-1]
  generator = 3 * g - made[0] + 2 * d
  # A penalty of its own step makes images for the means of batch normalisation as well.
  resting = g if every > 1 else 0
  by_hand = 2 * 16 * (discriminator + (penalty + resting) / every + generator)
  assert planned(config)[0].flops == pytest.approx(by_hand, rel=0.05)


def test_operations_of_a_dcgan_by_hand():
  config = config_of('dcgan_batch_norm')
  config.data.batch_size = 4
  # Taps of a kernel of 4 that fall on the image: along one axis of 28 pixels 54, of 14 pixels 26.
  large, small = 54**2, 26**2
  made = [100 * 49 * 128, small * 128 * 64, large * 64]
  scored = [large * 64, small * 64 * 128, 49 * 128]
  g, d = sum(made), sum(scored)
  by_hand = 2 * 4 * (g + 2 * (3 * d - scored[0]) + 3 * g - made[0] + 2 * d)
  assert planned(config)[0].flops == pytest.approx(by_hand, rel=0.05)


def gpt2(remat, layers=4, accumulate=1, **changes):
  config = tiny.config_of('gpt2', '124m')
  width, length = 64, 128
  config.modules.model.update(
    width=width, layers=layers, heads=2, hidden=0, context=length, remat=remat, **changes
  )
  config.data.text.update(length=length)
  config.train.accumulate = accumulate
  spec = tiny.spec_of_text(config)
  return planned(config, spec)


@pytest.mark.parametrize('accumulate', [1, 4])
def test_operations_of_gpt2_by_hand(accumulate):
  """6·N + 12·L·H·Q·T a token (Chowdhery et al. 2022), positions left out of N."""
  plan, session = gpt2(remat=False, accumulate=accumulate)
  params = session.lane_abstract.params['model']
  n = sum(leaf.size for leaf in jax.tree.leaves(params)) - params['positions']['embedding'].size
  tokens = 4 * 128
  assert plan.tokens == 128 and plan.examples == 4
  assert plan.flops == pytest.approx(tokens * (6 * n + 12 * 4 * 64 * 128), rel=0.05)


@pytest.mark.parametrize('scan', [True, False])
def test_what_is_repeated_is_counted_apart(scan):
  plain, _ = gpt2(remat=False, scan=scan)
  repeated, _ = gpt2(remat=True, scan=scan)
  assert plain.recomputed == 0 < repeated.recomputed
  assert repeated.flops - repeated.recomputed == pytest.approx(plain.flops, rel=0.01)
  # At most the whole forward pass, a third of it all.
  assert 0.1 * plain.flops < repeated.recomputed < plain.flops / 3


MEASURED = """
import gc
import json
import jax, jax.numpy as jnp
from absl import flags
flags.FLAGS.mark_as_parsed()
from commands import cli
from commands.config_flags import complete_init_from
from engine.feeds import describe_feed, open_feed
from engine.planning.estimate import make_plan
from engine.program import make_program, trace_step
from engine.session import open_session

config = cli.load('configs/mlp.py')
complete_init_from(config)
config.modules.model.widths = (4096, 4096)
config.data.batch_size = 2048
session = open_session(config)
traced = trace_step(session)
plan = make_plan(session, describe_feed(session), traced)
feed = open_feed(session, 0)
_, taken = feed.take(0, 2)
given = jnp.bool_(True), taken, jnp.int32(2), jnp.ones(1, bool)
program = make_program(session, feed, traced).dispatch.lower(session.abstract, *given).compile()

def resident(name):
  lines = open('/proc/self/status').read().splitlines()
  return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

jax.block_until_ready(session.init())  # what compiling it takes is no part of the peak
gc.collect()
before = resident('VmRSS')
state = jax.block_until_ready(session.init())
open('/proc/self/clear_refs', 'w').write('5')  # the peak begins anew
jax.block_until_ready(program(state, *given))
print(json.dumps([plan.peak, resident('VmHWM') - before]))
"""


@pytest.mark.cpu('what a process takes of the memory of a CPU is measured')
@pytest.mark.skipif(not os.path.exists('/proc/self/clear_refs'), reason='the peak is read in /proc')
@pytest.mark.slow
def test_the_peak_is_what_a_process_then_takes():
  # So that what is freed is given back to the system, and counts as new when it is taken again.
  own = {**environment(), 'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '0'}
  done = subprocess.run(
    [sys.executable, '-c', MEASURED], cwd=ROOT, env=own, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  planned_peak, measured = json.loads(done.stdout)
  assert planned_peak > 2**28 and planned_peak == pytest.approx(measured, rel=0.1)
