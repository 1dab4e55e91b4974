"""The dense generator with and without batch normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.mlp import Generator

LATENTS = jnp.asarray(np.random.default_rng(0).standard_normal((6, 3)), jnp.float32)


def _generate(norm, latents, train):
  module = Generator((5, 4), 'relu', (2, 2, 1), norm=norm)
  variables = module.init(jax.random.key(0), LATENTS, None, False)
  images, changed = module.apply(variables, latents, None, train, mutable=['batch_stats'])
  return np.asarray(images), variables, changed


@pytest.mark.parametrize(('norm', 'train', 'alone'), [
  ('none', True, True), ('batch', True, False), ('batch', False, True),
])  # fmt: skip
def test_an_image_depends_on_its_latent_alone_but_in_normalised_training(norm, train, alone):
  whole, part = _generate(norm, LATENTS, train)[0], _generate(norm, LATENTS[:3], train)[0]
  assert np.allclose(whole[:3], part, rtol=1e-5) == alone


def test_training_moves_the_running_statistics():
  _, variables, changed = _generate('batch', LATENTS, True)
  before, after = variables['batch_stats'], changed['batch_stats']
  assert set(before) == {'norm_0', 'norm_1'}
  first = LATENTS @ variables['params']['hidden_0']['kernel']
  np.testing.assert_allclose(after['norm_0']['mean'], 0.1 * first.mean(0), rtol=1e-4, atol=1e-6)
  assert (
    'bias' not in variables['params']['hidden_0']
    and 'batch_stats' not in (_generate('none', LATENTS, True)[1])
  )
