"""The dense generator with batch normalisation, the discriminator with minibatch deviation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.mlp import Discriminator, Generator

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


IMAGES = jnp.asarray(np.random.default_rng(1).uniform(size=(6, 2, 2, 1)), jnp.float32)


def _discriminate(group, images):
  module = Discriminator((5, 4), 'relu', minibatch_stddev=group)
  params = module.init(jax.random.key(0), IMAGES, None, False)
  return module.apply(params, images, None, True), params['params'], (module, params)


def test_the_deviation_in_a_group_is_an_input_of_the_last_hidden_layer():
  logits, params, _ = _discriminate(3, IMAGES)
  layers = [(np.asarray(params[n]['kernel']), np.asarray(params[n]['bias'])) for n in params]
  assert [kernel.shape for kernel, _ in layers] == [(4, 5), (6, 4), (4, 1)]
  x = np.maximum(np.asarray(IMAGES).reshape(6, 4) @ layers[0][0] + layers[0][1], 0)
  spread = [x[i : i + 3].std(0).mean() for i in (0, 3)]
  x = np.concatenate([x, np.repeat(spread, 3)[:, None]], 1)
  x = np.maximum(x @ layers[1][0] + layers[1][1], 0)
  np.testing.assert_allclose(logits, (x @ layers[2][0] + layers[2][1])[:, 0], rtol=1e-3, atol=1e-5)


def test_a_group_knows_nothing_of_other_groups_and_all_are_one_where_they_do_not_divide():
  both, part = _discriminate(3, IMAGES)[0], _discriminate(3, IMAGES[:3])[0]
  np.testing.assert_allclose(both[:3], part, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    _discriminate(4, IMAGES)[0], _discriminate(6, IMAGES)[0], rtol=1e-5, atol=1e-6
  )
  assert not np.allclose(_discriminate(4, IMAGES)[0], both, rtol=1e-3)


def test_equal_images_have_finite_gradients():
  module, params = _discriminate(3, IMAGES)[2]
  equal = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
  found = jax.grad(lambda x: module.apply(params, x, None, True).sum())(equal)
  assert jnp.isfinite(found).all()
