import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from engine.gradients import mean_gradient
from engine.init_rules import nothing_frozen
from engine.optimizers import make_optimizer
from engine.state import init_state
from engine.step import TrainStep
from errors import UserError
from losses.gaussian import Gaussian
from models import conv_vae, mlp
from models.pseudo_inputs import PseudoInputs
from objectives.cvae import CVAE
from objectives.iwae import IWAE
from objectives.vae import VAE
from objectives.vampprior import VampPrior
from tests.objectives.calls import evaluate, given, measure, render, sample

SHAPE = (8, 8, 1)
OPTIONS = dict(
  reconstruction='bernoulli',
  variance=0.0,
  kl_weight=1.0,
  kl_warmup=0,
  free_bits=0.0,
  binarise=False,
)


def build(kind=VAE, latent_size=3, modules=None, **options):
  own = {
    'encoder': mlp.Encoder(widths=(16,), activation='relu', latent_size=latent_size),
    'decoder': mlp.Decoder(widths=(16,), activation='relu', image_shape=SHAPE),
    **({'pseudo_inputs': PseudoInputs(5, SHAPE)} if kind is VampPrior else {}),
  }
  return kind(modules=modules or own, **{**OPTIONS, **options})


def batch(rows=6, first=0):
  image = jax.random.uniform(jax.random.key(7), (6, *SHAPE))[first : first + rows]
  return {
    'image': image,
    'label': jnp.arange(first, first + rows) % 4,
    'position': jnp.arange(first, first + rows),
  }


def variables_of(objective, scale=3.0):
  """Fresh variables, larger than initialised so that everything has an effect."""
  fresh = jax.jit(objective.init)(jax.random.key(0), batch())
  return {m: {**v, 'params': jax.tree.map(lambda x: scale * x, v['params'])}
          for m, v in fresh.items()}  # fmt: skip


def split(variables):
  params = {m: v['params'] for m, v in variables.items()}
  return params, {m: {k: x for k, x in v.items() if k != 'params'} for m, v in variables.items()}


def loss_of(objective, variables=None, step=0, key=3):
  params, mutable = split(variables or variables_of(objective))
  loss = jax.jit(objective.players[0].loss)
  return loss(params, mutable, *given(batch(), jax.random.key(key), step))


def mean_loss(objective, variables, number=20):
  """The mean over that many keys."""
  params, mutable = split(variables)

  def loss(key):
    return objective.players[0].loss(params, mutable, *given(batch(), key))[0]

  return float(jax.jit(jax.vmap(loss))(jax.random.split(jax.random.key(3), number)).mean())


def test_the_loss_is_reconstruction_plus_weighted_kl():
  loss, aux = loss_of(build())
  np.testing.assert_allclose(loss, aux.metrics['reconstruction'] + aux.metrics['kl'], rtol=1e-5)
  assert aux.metrics['kl'] > 0.1
  weighted, heavy = loss_of(build(kl_weight=3.0))
  np.testing.assert_allclose(weighted - loss, 2 * aux.metrics['kl'], rtol=1e-3)
  assert heavy.metrics['kl'] == aux.metrics['kl']


def test_warm_up_reads_the_step():
  objective = build(kl_warmup=10)
  values = [loss_of(objective, step=step) for step in (0, 4, 9, 50)]
  np.testing.assert_allclose([aux.metrics['kl_weight'] for _, aux in values], [0.1, 0.5, 1, 1])
  loss, aux = values[1]
  expected = aux.metrics['reconstruction'] + 0.5 * aux.metrics['kl']
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_evaluate_s_parts_add_up_per_example():
  objective = build()
  values = evaluate(objective, variables_of(objective), batch(), jax.random.key(0))
  assert {v.shape for v in values.values()} == {(6,)}
  np.testing.assert_allclose(values['elbo'], -(values['reconstruction'] + values['kl']), rtol=1e-5)
  np.testing.assert_allclose(values['bits_per_dim'], -values['elbo'] / (64 * np.log(2)), rtol=1e-5)


def test_mse_is_of_the_decoded_posterior_mean():
  objective, images = build(), batch()['image']
  variables = variables_of(objective)
  nothing = jnp.zeros((6, 0))
  mean, _ = objective.modules['encoder'].apply(variables['encoder'], images, nothing, train=False)
  logits = objective.modules['decoder'].apply(variables['decoder'], mean, nothing, train=False)
  expected = np.mean((images - jax.nn.sigmoid(logits[..., 0])) ** 2, axis=(1, 2, 3))
  values = evaluate(objective, variables, batch(), jax.random.key(0))
  np.testing.assert_allclose(values['mse'], expected, rtol=1e-5)


@pytest.mark.parametrize('reconstruction, outputs', [('bernoulli', 1), ('categorical', 256)])
def test_the_decoder_gets_as_many_outputs_as_the_likelihood_reads(reconstruction, outputs):
  objective = build(reconstruction=reconstruction)
  assert objective.modules['decoder'].outputs == outputs
  assert np.isfinite(loss_of(objective)[0])


def by_quadrature(objective, variables, data, log_prior):
  """log p(x) = log ∫ p(x | z) p(z) dz on a grid of one-dimensional latents, [B]."""
  grid = jnp.linspace(-9, 9, 6001)
  beside = jnp.repeat(objective._condition(data)[:1], 6001, axis=0)
  outputs = objective.modules['decoder'].apply(
    variables['decoder'], grid[:, None], beside, train=False
  )
  log_probs = jax.vmap(lambda x: objective._likelihood.log_prob(x, outputs))(data['image'])
  return logsumexp(log_probs + log_prior(grid[:, None]), axis=1) + jnp.log(grid[1] - grid[0])


@pytest.mark.parametrize('kind', [VAE, IWAE, pytest.param(VampPrior, marks=pytest.mark.slow)])
def test_the_measured_likelihood_is_the_integral(kind):
  """With one latent dimension the integral can be done on a grid, whatever encoder and decoder."""
  more = dict(importance_samples=2) if kind is IWAE else {}
  objective = build(kind, latent_size=1, **more)
  variables, data = variables_of(objective, scale=1.5), batch()
  estimate = jax.jit(lambda *given: measure(objective, 'likelihood', *given, samples=3000))
  measured = estimate(variables, data, jax.random.key(0))
  log_prior = objective._log_prior(variables)
  np.testing.assert_allclose(
    jnp.trapezoid(jnp.exp(log_prior(jnp.linspace(-9, 9, 6001)[:, None])), dx=18 / 6000),
    1,
    rtol=1e-3,
  )
  exact = by_quadrature(objective, variables, data, log_prior)
  np.testing.assert_allclose(-measured['nll'], exact, atol=0.1)
  bound = evaluate(objective, variables, data, jax.random.key(0))['elbo']
  assert float(bound.mean()) < float(exact.mean())


def test_the_likelihood_is_of_the_same_draw_of_the_data_as_the_elbo():
  """A decoder that ignores the latents: reconstruction and likelihood must be the same number."""
  objective = build(binarise=True)
  variables = variables_of(objective)
  variables['decoder'] = jax.tree.map(jnp.zeros_like, variables['decoder'])
  variables['decoder']['params']['output']['bias'] = jnp.linspace(-3, 3, 64)
  variables['encoder'] = jax.tree.map(jnp.zeros_like, variables['encoder'])  # q = p: all weights 1
  key = jax.random.key(5)
  values = evaluate(objective, variables, batch(), key)
  measured = measure(objective, 'likelihood', variables, batch(), key, samples=50)
  np.testing.assert_allclose(measured['nll'], values['reconstruction'], rtol=1e-5)
  np.testing.assert_allclose(measured['effective_samples'], 50, rtol=1e-4)


def test_pixels_are_drawn_anew_with_the_chance_of_their_grey_level():
  objective = build(binarise=True)
  data = {'image': jnp.full((4000, 2, 2, 1), 0.3), 'position': jnp.arange(4000)}
  seen = objective._observe(data, jax.random.split(jax.random.key(0), 4000))
  assert set(np.unique(seen)) == {0.0, 1.0}
  np.testing.assert_allclose(seen.mean(axis=0), 0.3, atol=0.03)
  assert (seen != objective._observe(data, jax.random.split(jax.random.key(1), 4000))).any()
  exact = {'image': jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1), 'position': jnp.arange(2)}
  np.testing.assert_array_equal(
    objective._observe(exact, jax.random.split(jax.random.key(0), 2)), exact['image']
  )


@pytest.mark.slow
def test_iwae_bounds_grow_with_k_and_one_sample_is_the_elbo():
  variables = variables_of(build(), scale=1.5)
  bounds = {}
  for samples in (1, 20):
    objective = build(IWAE, importance_samples=samples)
    bounds[samples] = -mean_loss(objective, variables)
  assert bounds[1] + 5 < bounds[20]
  elbo = -mean_loss(build(), variables)
  # The same expectation by one draw each and with the KL in closed form.
  np.testing.assert_allclose(bounds[1], elbo, rtol=0.01)
  values = evaluate(build(IWAE, importance_samples=20), variables, batch(), jax.random.key(0))
  assert values['iwae_bound'].shape == (6,) and values['iwae_bound'].mean() > values['elbo'].mean()


def test_a_vampprior_moves_its_pseudo_inputs_and_samples_from_their_posteriors():
  objective = build(VampPrior)
  assert objective.players[0].moves == ('encoder', 'decoder', 'pseudo_inputs')
  variables = variables_of(objective)
  params, mutable = split(variables)
  gradient = jax.jit(
    jax.grad(lambda p: objective.players[0].loss(p, mutable, *given(batch(), jax.random.key(3)))[0])
  )(params)
  assert float(jnp.abs(gradient['pseudo_inputs']['logits']).max()) > 0
  latents = objective._prior_latents(variables, jax.random.split(jax.random.key(0), 6000))
  components = objective._components(variables)
  assert components.mean.shape == (5, 3)
  np.testing.assert_allclose(latents.mean(axis=0), components.mean.mean(axis=0), atol=0.1)
  spread = components.mean.var(axis=0) + jnp.exp(components.log_variance).mean(axis=0)
  np.testing.assert_allclose(latents.var(axis=0), spread, rtol=0.1)


def test_a_conditional_model_draws_the_class_it_is_asked_for():
  objective = build(CVAE, num_classes=4)
  variables = variables_of(objective)
  key = jax.random.key(1)
  threes, in_turn = (
    sample(objective, variables, key, 8, label=3),
    sample(objective, variables, key, 8),
  )
  np.testing.assert_array_equal(in_turn[3::4], threes[3::4])
  assert np.abs(in_turn[:3] - threes[:3]).max() > 1e-3
  with pytest.raises(UserError, match='--label=4 must be at least 0 and at most 3'):
    sample(objective, variables, key, 2, label=4)
  with pytest.raises(UserError, match='the data set has none'):
    build(CVAE, num_classes=0)


@pytest.mark.parametrize('kind', [VAE, VampPrior])
def test_sample_is_deterministic_and_a_longer_one_begins_alike(kind):
  objective = build(kind)
  variables = variables_of(objective)
  images = sample(objective, variables, jax.random.key(1), 4)
  assert images.shape == (4, *SHAPE) and images.min() >= 0 and images.max() <= 1
  longer = sample(objective, variables, jax.random.key(1), 6)
  np.testing.assert_allclose(longer[:4], images, atol=1e-6)
  assert np.abs(images[0] - images[1]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('binarise', [False, True])
def test_accumulation_is_the_big_batch(binarise):
  objective = build(binarise=binarise)
  section = dict(
    name='sgd', learning_rate=0.1, clip=0.0, weight_decay=0.0, l1=0.0, clip_weights=0.0,
    decay_only='',
    schedule=dict(name='constant', warmup=0, end=0.0, boundaries=(), factors=()),
  )  # fmt: skip
  chains = {'vae': make_optimizer(10, 'x', **section)}
  state = jax.jit(lambda: init_state(objective, chains, {}, 0, batch(1), nothing_frozen))()
  data = {name: batch()[name] for name in ('image', 'label')}
  after = [
    jax.jit(TrainStep(objective, chains, {}, mean_gradient, nothing_frozen, 6, pieces))(
      state, data
    )[0]
    for pieces in (1, 3)
  ]
  for a, b in zip(*(jax.tree.leaves(s.params) for s in after)):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_drawings_have_their_shapes():
  objective = build(latent_size=2)
  variables, key = variables_of(objective), jax.random.key(0)

  def drawn(kind, num):
    return jax.jit(lambda v: render(objective, kind, v, batch(), key, num))(variables)

  rows = drawn('reconstruct', 5)
  assert rows.shape == (2, 5, *SHAPE)
  np.testing.assert_array_equal(rows[0], batch()['image'][:5])
  walk = drawn('interpolate', 2)
  assert walk.shape == (2, 13, *SHAPE)
  np.testing.assert_array_equal(walk[:, 0], batch()['image'][:4:2])
  np.testing.assert_array_equal(walk[:, -1], batch()['image'][1:4:2])
  # Next to either end stands its own reconstruction.
  np.testing.assert_allclose(walk[0, 1], rows[1, 0], atol=1e-6)
  np.testing.assert_allclose(walk[0, -2], rows[1, 1], atol=1e-6)
  assert drawn('traverse', 10).shape == (2, 11, *SHAPE)
  assert drawn('manifold', 3).shape == (3, 3, *SHAPE)
  with pytest.raises(UserError, match=r'needs 2 latent dimensions and this model has 3'):
    render(build(), 'manifold', variables_of(build()), batch(), key, 3)


def test_reconstructions_over_several_rows_stand_below_their_originals():
  objective = build()
  many = {name: jnp.concatenate([value] * 2) for name, value in batch().items()}
  rows = render(objective, 'reconstruct', variables_of(objective), many, jax.random.key(0), 12)
  assert rows.shape == (4, 8, *SHAPE)
  np.testing.assert_array_equal(rows[2, :4], many['image'][8:])
  np.testing.assert_allclose(rows[1, 0], rows[1, 6], atol=1e-6)
  assert (rows[2:, 4:] == 1).all()


def test_a_traversal_moves_the_dimension_that_carries_most():
  objective = build(latent_size=3)
  variables = variables_of(objective)
  output = jax.tree.map(jnp.zeros_like, variables['encoder']['params']['output'])
  output['bias'] = jnp.array([0.0, 0, 2, 0, -3, 0])  # means 0, 0, 2 and log-variances 0, −3, 0
  variables['encoder']['params']['output'] = output
  rows = render(objective, 'traverse', variables, batch(), jax.random.key(0), 2)

  def decoded(latent):
    decoder = objective.modules['decoder']
    latent, nothing = jnp.array([latent]), jnp.zeros((1, 0))
    return jax.nn.sigmoid(
      decoder.apply(variables['decoder'], latent, nothing, train=False)[..., 0]
    )[0]

  # KL: 2 for the third, 1.02 for the second, 0 for the first.
  np.testing.assert_allclose(rows[0, 0], decoded([0.0, 0.0, -3.0]), atol=1e-6)
  np.testing.assert_allclose(rows[1, -1], decoded([0.0, 3.0, 2.0]), atol=1e-6)
  captions = objective.pictures['traverse'].captions
  described = captions.describe(variables, batch(), None, 2)
  values = [{name: each[i] for name, each in described.items()} for i in range(2)]
  assert [captions.row(each, ()) for each in values] == [
    'z[2]\nKL 2.00 nats', 'z[1]\nKL 1.02 nats',
  ]  # fmt: skip
  assert captions.columns[0] == '-3.0' and len(captions.columns) == rows.shape[1]


@pytest.mark.parametrize('labelled', [True, False])
def test_an_interpolation_names_the_classes_of_its_pairs_where_there_are_any(labelled):
  objective, data = build(), batch(5)
  captions = objective.pictures['interpolate'].captions
  if not labelled:
    del data['label']
  described = captions.describe({}, data, None, 3)
  if not labelled:
    assert described == {} and captions.row({}, ()) == ''
    return
  values = [{name: each[i] for name, each in described.items()} for i in range(2)]
  assert [captions.row(each, 'abcd') for each in values] == ['a to b', 'c to d']
  rows = render(objective, 'interpolate', variables_of(objective), data, jax.random.key(0), 3)
  assert rows.shape[:2] == (2, len(captions.columns))


@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 32, 3)])
def test_convolutional_modules_give_what_the_dense_ones_do(shape):
  modules = {
    'encoder': conv_vae.Encoder(widths=(2, 4), hidden=8, latent_size=3),
    'decoder': conv_vae.Decoder(widths=(4, 2), hidden=8, image_shape=shape),
  }
  objective = build(modules=modules)
  data = {'image': jnp.zeros((2, *shape)), 'position': jnp.arange(2), 'step': jnp.zeros(2, int)}
  variables = jax.eval_shape(objective.init, jax.random.key(0), data)
  posterior = jax.eval_shape(objective._encode, variables, data['image'], jnp.zeros((2, 0)))
  assert isinstance(posterior, Gaussian) and posterior.log_variance.shape == (2, 3)
  images = jax.eval_shape(lambda v, k: sample(objective, v, k, 2), variables, jax.random.key(0))
  assert images.shape == (2, *shape)


def test_a_condition_stands_beside_every_pixel():
  images, condition = jnp.ones((2, 4, 4, 1)), jnp.array([[0.0, 5.0], [6.0, 0.0]])
  beside = conv_vae.beside_every_pixel(images, condition)
  assert beside.shape == (2, 4, 4, 3)
  np.testing.assert_array_equal(beside[1, :, :, 1], 6.0)


@pytest.mark.parametrize(
  'kind, options, part',
  [
    (VAE, {'reconstruction': 'bernouli'}, 'did you mean "bernoulli"'),
    (VAE, {'reconstruction': 'gaussian', 'binarise': True}, 'set it to bernoulli'),
    (IWAE, {'importance_samples': 2, 'kl_weight': 2.0}, 'no KL to weigh'),
  ],
)
def test_mistakes_are_named(kind, options, part):
  with pytest.raises(UserError, match=part):
    build(kind, **options)


def test_images_that_do_not_halve_are_refused():
  modules = {
    'encoder': conv_vae.Encoder(widths=(2, 4), hidden=8, latent_size=3),
    'decoder': conv_vae.Decoder(widths=(4, 2), hidden=8, image_shape=(30, 30, 1)),
  }
  with pytest.raises(UserError, match='30 × 30 must be a multiple of 4'):
    build(modules=modules).init(jax.random.key(0), {'image': jnp.zeros((1, 30, 30, 1))})
