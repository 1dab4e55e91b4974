"""The compiled loop over steps: how it is cut into dispatches, and where it stops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.program import Program, make_program
from engine.session import Session, open_session
from engine.state import State
from tests.golden.tiny import batch_of, config_of, spec

ROWS = 4


class Given:
  """A feed of batches that lie ready: `taken` is their images [steps, B, H, W, C]."""

  def batch(self, taken, i):
    rows = jnp.arange(ROWS)
    return {'image': taken[i], 'label': rows, 'index': rows, 'epoch': jnp.uint32(rows)}


@pytest.fixture(scope='module')
def vae() -> tuple[Session, Program]:
  config = config_of('vae')
  config.modules.encoder.update(widths=(8,), latent_size=2)
  config.modules.decoder.widths = (8,)
  config.objective.kl_warmup = 3
  config.train.update(steps=10, dispatch=7)
  session = open_session(config, spec('mnist5k'))
  return session, make_program(session, Given())


def dispatch(vae, lengths, spoiled: int = -1) -> tuple[State, bool, np.ndarray]:
  """State, whether all is finite, and the metrics of all steps, by dispatches of these lengths."""
  session, program = vae
  images = np.stack([batch_of(session.spec, ROWS, step)['image'] for step in range(7)])
  images = images.astype(np.float32)
  images[spoiled % 7] *= 1 if spoiled < 0 else np.nan
  state, ok, rows, first = session.init(), np.bool_(True), [], 0
  for length in lengths:
    inputs = ok, np.roll(images, -first, axis=0), np.int32(length), np.ones(1, bool)
    state, ok, row = program.dispatch(state, *jax.device_put(inputs, session.replicated))
    rows.append(np.asarray(row)[0, :length])
    first += length
  return state, bool(ok), np.concatenate(rows)


def assert_same_bits(a: State, b: State) -> None:
  a, b = (state.replace(key=jax.random.key_data(state.key)) for state in (a, b))
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_how_steps_are_cut_into_dispatches_changes_no_bit(vae):
  (whole, _, metrics), (cut, _, others) = dispatch(vae, [7]), dispatch(vae, [1, 4, 2])
  assert whole.step == 7
  assert_same_bits(whole, cut)
  np.testing.assert_array_equal(metrics, others)
  assert vae[1].dispatch._cache_size() == 1
  # Every step is another one, on other images.
  losses = metrics[:, vae[1].names.index('vae/loss'), 0]
  assert len(set(losses.tolist())) == 7


def test_it_stops_after_the_first_step_that_is_not_finite(vae):
  bad, ok, rows = dispatch(vae, [5], spoiled=3)
  assert not ok and bad.step == 4
  finite = np.isfinite(rows).all(axis=(1, 2))
  assert finite.tolist() == [True, True, True, False, True] and (rows[4] == 0).all()
  # Dispatches that were queued after it leave all as it is.
  later, ok, rows = dispatch(vae, [5, 2], spoiled=3)
  assert not ok and later.step == 4 and (rows[5:] == 0).all()
