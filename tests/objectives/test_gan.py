import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models import dcgan, mlp
from objectives.gan import GAN
from tests.objectives.calls import evaluate, given, sample

SHAPE = (8, 8, 1)


def gan(**options):
  modules = {
    'generator': dcgan.Generator(widths=(4, 2), image_shape=SHAPE),
    'discriminator': mlp.Discriminator(widths=(8,), activation='leaky_relu', dropout=0.5),
  }
  settings = dict(loss='non_saturating', penalties={}, penalty_every=1, n_critic=1, latent_size=5)
  return GAN(**{'modules': modules, **settings, **options})


def batch(rows=6, first=0):
  image = jax.random.uniform(jax.random.key(7), (6, *SHAPE))[first : first + rows]
  return {'image': image, 'position': jnp.arange(first, first + rows)}


def split(variables):
  params = {m: v['params'] for m, v in variables.items()}
  mutable = {m: {k: x for k, x in v.items() if k != 'params'} for m, v in variables.items()}
  return params, mutable


@pytest.fixture
def variables():
  # Ten times the initial weights, so that images differ visibly.
  fresh = gan().init(jax.random.key(0), batch())
  return {m: {**v, 'params': jax.tree.map(lambda x: 10 * x, v['params'])} for m, v in fresh.items()}


def test_sample_is_deterministic_and_a_longer_one_begins_alike(variables):
  objective = gan()
  images = sample(objective, variables, jax.random.key(1), 4)
  assert images.shape == (4, *SHAPE)
  np.testing.assert_array_equal(images, sample(objective, variables, jax.random.key(1), 4))
  longer = sample(objective, variables, jax.random.key(1), 6)
  np.testing.assert_allclose(longer[:4], images, atol=1e-6)
  assert np.abs(images[0] - images[1]).max() > 1e-4
  other = sample(objective, variables, jax.random.key(2), 4)
  assert np.abs(images - other).max() > 1e-4


def test_sampling_uses_running_statistics_and_training_the_batch_s(variables):
  objective = gan()
  params, mutable = split(variables)
  generator_player = objective.players[1]
  _, aux = generator_player.loss(params, mutable, *given(batch(), jax.random.key(3)))
  before = jax.tree.leaves(mutable['generator'])
  after = jax.tree.leaves(aux.mutable['generator'])
  assert any((a != b).any() for a, b in zip(before, after))
  shifted = jax.tree.map(lambda x: x + 0.5, variables['generator']['batch_stats'])
  moved = {**variables, 'generator': {**variables['generator'], 'batch_stats': shifted}}
  key = jax.random.key(1)
  difference = sample(objective, moved, key, 4) - sample(objective, variables, key, 4)
  assert np.abs(difference).max() > 1e-4


def test_the_discriminator_s_turn_leaves_the_generator_s_statistics(variables):
  params, mutable = split(variables)
  _, aux = gan().players[0].loss(params, mutable, *given(batch(), jax.random.key(3)))
  assert set(aux.mutable) == {'discriminator'}


def test_gradients_reach_only_the_player_s_own_modules(variables):
  params, mutable = split(variables)
  player = gan().players[0]

  def loss(generator):
    return player.loss(
      {**params, 'generator': generator}, mutable, *given(batch(), jax.random.key(3))
    )[0]

  gradient = jax.grad(loss)(params['generator'])
  assert all((g == 0).all() for g in jax.tree.leaves(gradient))


def test_penalties_are_weighted_and_added(variables):
  params, mutable = split(variables)
  key = jax.random.key(3)
  plain, _ = gan().players[0].loss(params, mutable, *given(batch(), key))
  loss, aux = (
    gan(penalties={'r1': 2.0, 'r2': 0.0}).players[0].loss(params, mutable, *given(batch(), key))
  )
  assert 'r2' not in aux.metrics
  np.testing.assert_allclose(loss - plain, 2.0 * aux.metrics['r1'], rtol=1e-4, atol=1e-6)


def test_noise_of_an_example_depends_on_its_position_alone(variables):
  """So that accumulation over microbatches draws what the big batch would."""
  objective = gan()
  whole = given(batch(6), jax.random.key(0))[1].fold('latents')
  part = given(batch(2, first=3), jax.random.key(0))[1].fold('latents')
  np.testing.assert_array_equal(jax.random.key_data(whole)[3:5], jax.random.key_data(part))
  latents = objective.latents(whole)
  assert latents.shape == (6, 5)
  assert (
    abs(float(jnp.std(objective.latents(jax.random.split(jax.random.key(0), 4000)))) - 1) < 0.02
  )


def test_evaluate_is_per_example(variables):
  values = evaluate(gan(), variables, batch(), jax.random.key(0))
  assert {v.shape for v in values.values()} == {(6,)}


@pytest.mark.parametrize(
  'options, part',
  [
    ({'penalties': {'r3': 1.0}}, r'penalties\.r3 is no .* r1, r2, gradient_penalty, dragan'),
    ({'penalty_every': 4}, 'has no effect without a penalty'),
  ],
)
def test_mistakes_are_named(options, part):
  with pytest.raises(UserError, match=part):
    gan(**options)


def test_a_lazy_penalty_is_a_player_that_shares_the_optimizer(variables):
  params, mutable = split(variables)
  every = gan(penalties={'r1': 2.0})
  lazy = gan(penalties={'r1': 2.0}, penalty_every=16)
  names = [(p.name, p.every, p.optimizer_name) for p in lazy.players]
  assert names == [
    ('discriminator', 1, 'discriminator'),
    ('penalty', 16, 'discriminator'),
    ('generator', 1, 'generator'),
  ]
  data = given(batch(), jax.random.key(3))
  both, aux = every.players[0].loss(params, mutable, *data)
  plain, bare = lazy.players[0].loss(params, mutable, *data)
  penalty, alone = lazy.players[1].loss(params, mutable, *data)
  assert 'r1' not in bare.metrics
  np.testing.assert_allclose(alone.metrics['r1'], aux.metrics['r1'], rtol=1e-5)
  np.testing.assert_allclose(penalty, 16 * (both - plain), rtol=1e-4)


def test_a_relativistic_generator_is_compared_with_the_real_images_of_the_batch(variables):
  modules = {
    'generator': dcgan.Generator(widths=(4, 2), image_shape=SHAPE),
    'discriminator': mlp.Discriminator(widths=(8,), activation='leaky_relu', dropout=0.0),
  }
  params, mutable = split(variables)
  discriminator, generator = gan(loss='relativistic', modules=modules).players
  losses, metrics = [], {}
  for player in (discriminator, generator):
    loss, aux = player.loss(params, mutable, *given(batch(), jax.random.key(3)))
    losses.append(loss)
    metrics |= aux.metrics
  # softplus(x) − softplus(−x) = x, x the difference of the logits.
  gap = metrics['real_logit'] - metrics['fake_logit']
  assert abs(gap) > 0.01
  np.testing.assert_allclose(losses[1] - losses[0], gap, rtol=1e-4)
