"""The compiled program: how deep its code is, and that a config with a lazy player trains."""

import traceback
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.program import make_program
from engine.session import open_session
from engine.step import TrainStep
from tests.golden import tiny

ROOT = Path(__file__).parents[2]


class Given:
  """A feed of batches that lie ready: `taken` is {name: [steps, B, …]}, and scalars of lanes."""

  def batch(self, taken, i):
    return {name: rows[i] for name, rows in taken.items() if rows.ndim}


def opened(config, name, steps=1):
  """The session of a config, its program, and batches for some steps."""
  spec = tiny.spec_for(name, 'mnist5k', config)
  session = open_session(config, spec)
  rows = [tiny.batch_of(spec, session.per_step, step) for step in range(steps)]
  return session, make_program(session, Given()), jax.tree.map(lambda *r: np.stack(r), *rows)


def test_a_short_way_from_the_program_to_the_network(monkeypatch):
  """Who reads a training step of the VAE passes few functions in few files."""
  session, program, taken = opened(tiny.config_of('vae'), 'vae')
  ways, apply = [], nn.Module.apply

  def watched(self, *inputs, **options):
    frames = [f for f in traceback.extract_stack()[:-1] if Path(f.filename).is_relative_to(ROOT)]
    ours = [(str(Path(f.filename).relative_to(ROOT)), f.name) for f in frames]
    ways.append([f for f in ours if not f[0].startswith(('tests/', '.venv/'))])
    return apply(self, *inputs, **options)

  # The step has been traced for the names of its metrics; that would be found again.
  jax.clear_caches()
  monkeypatch.setattr(nn.Module, 'apply', watched)
  program.dispatch.trace(session.abstract, jnp.bool_(True), taken, jnp.int32(1), jnp.ones(1, bool))
  assert ways
  for way in ways:
    listed = '\n'.join(f'{file}: {function}' for file, function in way)
    assert way[0][0] == 'engine/program.py' and way[-1][0] in listed, listed
    assert len(way) <= 8, f'{len(way)} functions to nn.Module.apply:\n{listed}'
    assert len({file for file, _ in way}) <= 5, f'too many files:\n{listed}'


@pytest.mark.slow
def test_a_config_with_a_player_that_rests_trains():
  config = tiny.config_of('dcgan')
  assert config.objective.penalty_every == 4 and config.objective.penalties.r1 > 0
  config.objective.penalty_every = 2
  config.modules.generator.widths = (4, 2)
  config.modules.discriminator.widths = (2, 4)
  session, program, taken = opened(config, 'dcgan', steps=3)
  assert set(session.optimizers) == {'discriminator', 'generator'}
  state, ok, rows = program.dispatch(
    session.init(), jnp.bool_(True), taken, jnp.int32(3), jnp.ones(1, bool)
  )
  assert ok and state.step == 3
  weights = dict(zip(program.names, np.asarray(rows)[0, :3, :, 1].T))
  np.testing.assert_array_equal(weights['penalty/r1'], [1, 0, 1])
  np.testing.assert_array_equal(weights['discriminator/loss'], [1, 1, 1])
  assert 'discriminator/r1' not in weights


@pytest.mark.parametrize('seeds', [1, 2])
def test_a_step_is_traced_once(monkeypatch, seeds):
  """Tracing takes most of the time until the first step of a run that was compiled before."""
  config = tiny.config_of('vae')
  config.seeds = seeds
  traces, step = [], TrainStep.__call__

  def counted(self, *inputs):
    traces.append(inputs)
    return step(self, *inputs)

  monkeypatch.setattr(TrainStep, '__call__', counted)
  session, program, taken = opened(config, 'vae')
  taken = jax.device_put(taken, session.replicated)
  program.dispatch.trace(
    session.abstract, jnp.bool_(True), taken, jnp.int32(1), jnp.ones(seeds, bool)
  )
  assert len(traces) == 1
