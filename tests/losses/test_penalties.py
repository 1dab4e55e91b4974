import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import penalties

SHAPE = (5, 3, 2, 1)
NAMES = ['r1', 'r2', 'gradient_penalty', 'dragan']


def images(seed):
  return jax.random.uniform(jax.random.key(seed), SHAPE)


def keys():
  return jax.random.split(jax.random.key(9), SHAPE[0])


def smooth(x):
  """A discriminator with a gradient that changes from place to place."""
  flat = x.reshape(x.shape[0], -1)
  weights = jnp.arange(1.0, flat.shape[1] + 1)
  return jnp.sum(jnp.sin(flat * weights), axis=-1)


def squared_norm_by_differences(x, step=1e-4):
  """‖∇ D(x)‖² by central differences in float64."""
  x = np.asarray(x, np.float64)
  weights = np.arange(1.0, x[0].size + 1)

  def value(v):
    return np.sum(np.sin(v.reshape(len(v), -1) * weights), axis=-1)

  total = np.zeros(len(x))
  for place in np.ndindex(x.shape[1:]):
    moved = np.zeros_like(x)
    moved[(slice(None), *place)] = step
    total += ((value(x + moved) - value(x - moved)) / (2 * step)) ** 2
  return total


@pytest.mark.parametrize('name, where', [('r1', 0), ('r2', 1)])
def test_r1_and_r2_are_half_the_squared_gradient(name, where):
  found = getattr(penalties, name)(keys(), smooth, images(0), images(1))
  wanted = 0.5 * squared_norm_by_differences(images(where))
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_gradient_penalty_at_points_between():
  # With real = fake every interpolate is that image, whatever epsilon is.
  found = penalties.gradient_penalty(keys(), smooth, images(0), images(0))
  wanted = (np.sqrt(squared_norm_by_differences(images(0))) - 1) ** 2
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_gradient_penalty_mixes_each_example_with_its_own_epsilon():
  seen = []

  def recording(x):
    seen.append(x)
    return smooth(x)

  real, fake = jnp.ones(SHAPE), jnp.zeros(SHAPE)
  with jax.disable_jit():
    penalties.gradient_penalty(keys(), recording, real, fake)
  mixed = np.asarray(jax.lax.stop_gradient(getattr(seen[0], 'primal', seen[0])))
  epsilon = mixed.reshape(SHAPE[0], -1)
  assert (epsilon >= 0).all() and (epsilon < 1).all()
  assert np.ptp(epsilon, axis=1).max() == 0  # one epsilon for an image
  assert len(np.unique(epsilon[:, 0])) == SHAPE[0]  # another for each


def test_dragan_without_spread_is_at_the_real_images():
  flat = jnp.full(SHAPE, 0.3)  # std 0: no noise
  found = penalties.dragan(keys(), smooth, flat, images(1))
  wanted = (np.sqrt(squared_norm_by_differences(flat)) - 1) ** 2
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_dragan_moves_the_real_images():
  at_real = (np.sqrt(squared_norm_by_differences(images(0))) - 1) ** 2
  found = penalties.dragan(keys(), smooth, images(0), images(1))
  assert np.abs(found - at_real).min() > 1e-3


@pytest.mark.parametrize('name', NAMES)
def test_gradient_of_a_penalty_by_finite_differences(name):
  """The second-order gradient, with respect to the discriminator's scale."""
  penalty = getattr(penalties, name)

  def total(scale):
    return penalty(keys(), lambda x: smooth(scale * x) * scale, images(0), images(1)).mean()

  with jax.enable_x64(True):
    found = float(jax.grad(total)(0.8))
    step = 1e-5
    wanted = float((total(0.8 + step) - total(0.8 - step)) / (2 * step))
  np.testing.assert_allclose(found, wanted, rtol=2e-2)


@pytest.mark.parametrize('name', NAMES)
def test_a_flat_discriminator_has_finite_gradients(name):
  penalty = getattr(penalties, name)

  def total(scale):
    return penalty(keys(), lambda x: scale * x.sum(axis=(1, 2, 3)), images(0), images(1)).mean()

  assert np.isfinite(jax.grad(total)(0.0))
