import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models import dcgan, mlp
from objectives.gan import GAN
from tests.steps import context, keys_of, split_variables

SHAPE = (8, 8, 1)


def gan(**options):
  modules = {
    'generator': dcgan.Generator(widths=(4, 2), image_shape=SHAPE),
    'discriminator': mlp.Discriminator(widths=(8,), activation='leaky_relu', dropout=0.5),
  }
  settings = dict(loss='non_saturating', penalties={}, penalty_every=1, n_critic=1, latent_size=5)
  return GAN(modules=modules, **{**settings, **options})


def batch():
  return {'image': jax.random.uniform(jax.random.key(7), (6, *SHAPE))}


def sample(variables, seed, rows):
  return gan().sampler.sample(variables, keys_of(rows, seed), jnp.arange(rows))


@pytest.fixture
def variables():
  # Ten times the initial weights, so that images differ visibly.
  fresh = gan().init(jax.random.key(0), batch())
  return {m: {**v, 'params': jax.tree.map(lambda x: 10 * x, v['params'])} for m, v in fresh.items()}


def test_sample_is_deterministic_and_a_longer_one_begins_alike(variables):
  images = sample(variables, 1, 4)
  assert images.shape == (4, *SHAPE) and gan().sampler.feature == 'image'
  np.testing.assert_array_equal(images, sample(variables, 1, 4))
  longer = sample(variables, 1, 6)
  np.testing.assert_allclose(longer[:4], images, atol=1e-6)
  assert np.abs(images[0] - images[1]).max() > 1e-4
  other = sample(variables, 2, 4)
  assert np.abs(images - other).max() > 1e-4


def test_sampling_uses_running_statistics_and_training_the_batch_s(variables):
  params, mutable = split_variables(variables)
  generator_player = gan().players[1]
  _, aux = generator_player.loss(params, mutable, batch(), context(6, 3))
  before = jax.tree.leaves(mutable['generator'])
  after = jax.tree.leaves(aux.mutable['generator'])
  assert any((a != b).any() for a, b in zip(before, after))
  shifted = jax.tree.map(lambda x: x + 0.5, variables['generator']['batch_stats'])
  moved = {**variables, 'generator': {**variables['generator'], 'batch_stats': shifted}}
  difference = sample(moved, 1, 4) - sample(variables, 1, 4)
  assert np.abs(difference).max() > 1e-4


def test_the_discriminator_s_turn_leaves_the_generator_s_statistics(variables):
  params, mutable = split_variables(variables)
  _, aux = gan().players[0].loss(params, mutable, batch(), context(6, 3))
  assert set(aux.mutable) == {'discriminator'}


def test_gradients_reach_only_the_player_s_own_modules(variables):
  params, mutable = split_variables(variables)
  player = gan().players[0]

  def loss(generator):
    return player.loss({**params, 'generator': generator}, mutable, batch(), context(6, 3))[0]

  gradient = jax.grad(loss)(params['generator'])
  assert all((g == 0).all() for g in jax.tree.leaves(gradient))


def test_penalties_are_weighted_and_added(variables):
  params, mutable = split_variables(variables)
  given = params, mutable, batch(), context(6, 3)
  plain, _ = gan().players[0].loss(*given)
  loss, aux = gan(penalties={'r1': 2.0, 'r2': 0.0}).players[0].loss(*given)
  assert 'r2' not in aux.metrics
  np.testing.assert_allclose(loss - plain, 2.0 * aux.metrics['r1'], rtol=1e-4, atol=1e-6)


def test_a_penalty_of_its_own_acts_rarely_and_as_much(variables):
  """Lazy regularisation: the weight of the penalty is multiplied by what it rests."""
  every = gan(penalties={'r1': 2.0, 'r2': 0.0})
  lazy = gan(penalties={'r1': 2.0, 'r2': 0.0}, penalty_every=16)
  assert [player.name for player in every.players] == ['discriminator', 'generator']
  first, penalty, last = lazy.players
  assert (first.name, penalty.name, last.name) == ('discriminator', 'penalty', 'generator')
  assert penalty.every == 16 and first.every == last.every == 1
  assert penalty.optimizer_name == first.optimizer_name == 'discriminator'
  assert penalty.moves == first.moves
  given = *split_variables(variables), batch(), context(6, 3)
  with_penalty, seen = every.players[0].loss(*given)
  without, _ = first.loss(*given)
  alone, aux = penalty.loss(*given)
  np.testing.assert_allclose(with_penalty - without, alone / 16, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(aux.metrics['r1'], seen.metrics['r1'], rtol=1e-5)
  assert set(aux.metrics) == {'r1'} and not aux.mutable


def test_latents_are_standard_normal_one_from_each_key():
  objective = gan()
  latents = objective.latents(keys_of(4000))
  assert latents.shape == (4000, 5)
  np.testing.assert_allclose([latents.mean(), latents.std()], [0, 1], atol=0.02)
  np.testing.assert_array_equal(objective.latents(keys_of(4000)[3:5]), latents[3:5])


def test_evaluate_is_per_example(variables):
  values = gan().evaluate(variables, batch(), keys_of(6))
  assert {v.shape for v in values.values()} == {(6,)}
  alone = gan().evaluate(variables, {'image': batch()['image'][4:]}, keys_of(6)[4:])
  for name, column in alone.items():
    np.testing.assert_allclose(column, values[name][4:], rtol=1e-5)


def test_an_interpolation_begins_and_ends_at_latents_of_its_own(variables):
  picture = gan().pictures['interpolate']
  assert picture.num == 8
  rows = picture.render(variables, batch(), keys_of(6, 2), 3)
  assert rows.shape == (3, 11, *SHAPE)
  fewer = picture.render(variables, batch(), keys_of(6, 2), 2)
  np.testing.assert_allclose(fewer, rows[:2], atol=1e-6)
  ends = np.asarray(jnp.concatenate([rows[:, 0], rows[:, -1]])).reshape(6, -1)
  assert np.abs(ends[:, None] - ends).max(axis=-1)[~np.eye(6, dtype=bool)].min() > 1e-4


@pytest.mark.parametrize(
  'options, part',
  [
    ({'loss': 'hinje'}, 'did you mean "hinge"'),
    ({'penalties': {'r3': 1.0}}, 'there are: dragan, gradient_penalty, r1, r2'),
    ({'penalties': {'r1': -1.0}}, '0 or more'),
    ({'n_critic': 0}, 'at least 1'),
    ({'penalty_every': 0}, 'penalty_every=0 must be at least 1'),
    ({'penalty_every': 2}, 'penalty_every=2 has no effect without a penalty'),
    ({'penalty_every': 2, 'penalties': {'r1': 0.0}}, 'has no effect without a penalty'),
  ],
)
def test_mistakes_are_named(options, part):
  with pytest.raises(UserError, match=part):
    gan(**options)
