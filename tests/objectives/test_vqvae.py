import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from engine.gradients import mean_gradient
from errors import UserError
from losses import quantization
from models import vqvae
from objectives.base import Aux
from objectives.vqvae import VQVAE
from sampling.picture_pairs import stack_pairs
from tests.objectives import calls
from tests.objectives.calls import given

SHAPE, CODES = (8, 8, 1), 16
# Everything runs a few times only: compiling it well would cost more than it saves.


def objective(codes=CODES, **options):
  modules = {
    'encoder': vqvae.Encoder(widths=(8, 8), blocks=1, hidden=4, code_size=4),
    'codebook': vqvae.Codebook(codes=codes),
    'decoder': vqvae.Decoder(widths=(8, 8), blocks=1, hidden=4, image_shape=SHAPE),
  }
  settings = dict(
    reconstruction='bernoulli',
    variance=0.0,
    commitment_weight=0.25,
    decay=0.9,
    restart_below=0.1,
  )
  return VQVAE(modules=modules, **{**settings, **options})


@functools.cache
def batch():
  """Smooth blobs, a different one in each image."""
  coarse = jax.random.uniform(jax.random.key(7), (8, 2, 2, 1))
  image = jax.image.resize(coarse, (8, *SHAPE), 'linear')
  return {'image': image, 'position': jnp.arange(8), 'step': jnp.zeros(8, jnp.int32)}


def split(variables):
  params = {m: v['params'] for m, v in variables.items()}
  mutable = {m: {k: x for k, x in v.items() if k != 'params'} for m, v in variables.items()}
  return params, mutable


@functools.cache
def fresh():
  return split(jax.jit(objective().init)(jax.random.key(0), batch()))


@jax.jit
def gradients(params, mutable, rows, key):
  """(gradient by module, Aux) of the player's loss, compiled once for all tests."""
  player = objective().players[0]

  def loss(moved):
    return player.loss({**params, **moved}, mutable, *given(rows, key))

  return jax.grad(loss, has_aux=True)({m: params[m] for m in player.moves})


evaluate = jax.jit(lambda *given: calls.evaluate(objective(), *given))
sample = jax.jit(lambda *given: calls.sample(objective(), *given), static_argnums=2)
nearest = jax.jit(quantization.nearest)
update_codebook = jax.jit(quantization.update_codebook)


def encoded(params):
  return objective().modules['encoder'].apply({'params': params}, batch()['image'], train=False)


def decoded(params, codes):
  return objective().modules['decoder'].apply({'params': params}, codes, train=False)


encode, decode = jax.jit(encoded), jax.jit(decoded)


class Trained:
  """A short training on one batch: what it ends with, and the metrics of every step."""

  def __init__(self, steps):
    self.params, self.mutable = fresh()
    optimizer = optax.adam(1e-2)
    moves, self.history = objective().players[0].moves, []
    state = optimizer.init({m: self.params[m] for m in moves})

    @jax.jit
    def update(moved, found, state):
      updates, state = optimizer.update(found, state)
      return optax.apply_updates(moved, updates), state

    for i in range(steps):
      key = jax.random.fold_in(jax.random.key(1), i)
      found, aux = gradients(self.params, self.mutable, batch(), key)
      moved, state = update({m: self.params[m] for m in moves}, found, state)
      self.params, self.mutable = {**self.params, **moved}, {**self.mutable, **aux.mutable}
      self.history.append({name: float(value) for name, value in aux.metrics.items()})
    self.variables = {m: {'params': p, **self.mutable[m]} for m, p in self.params.items()}
    self.book = quantization.Codebook(**self.mutable['codebook']['codebook'])


@pytest.fixture(scope='module')
def trained():
  return Trained(60)


def even(trained):
  """The trained collections with counts so even that no code is near its death."""
  book, counts = trained.book, 2.0 * jnp.ones(CODES)
  book = book._replace(counts=counts, sums=2.0 * book.embedding)
  return book, {**trained.mutable, 'codebook': {'codebook': book._asdict()}}


def test_the_codebook_has_no_parameters_and_no_player():
  params, mutable = fresh()
  assert params['codebook'] == {}
  shapes = {name: value.shape for name, value in mutable['codebook']['codebook'].items()}
  assert shapes == {
    'embedding': (CODES, 4), 'counts': (CODES,), 'sums': (CODES, 4), 'positions': (2, 2, CODES),
  }  # fmt: skip
  assert objective().players[0].moves == ('encoder', 'decoder')


def test_codes_learn(trained):
  first, last = trained.history[0], trained.history[-1]
  assert last['reconstruction'] < first['reconstruction'] - 1
  assert last['codebook_used'] > 2 * first['codebook_used']
  assert last['codebook_perplexity'] > 4


def test_the_encoder_s_gradient_is_the_decoder_s_at_the_codes_and_commitment(trained):
  params, images = trained.params, batch()['image']
  found, _ = gradients(params, trained.mutable, batch(), jax.random.key(0))
  z = encode(params['encoder'])
  codes = trained.book.embedding[nearest(z, trained.book.embedding)]

  def rebuilt(q):
    outputs = decoded(params['decoder'], q)
    return -objective()._likelihood.log_prob(images, outputs).mean()

  at_codes = jax.jit(jax.grad(rebuilt))(codes) + 0.25 * 2 * (z - codes) / images.shape[0]
  expected = jax.jit(lambda p, g: jax.vjp(encoded, p)[1](g)[0])(params['encoder'], at_codes)
  assert optax.global_norm(expected) > 1e-2
  for a, b in zip(jax.tree.leaves(found['encoder']), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_loss_moves_the_codebook_by_its_averages(trained):
  book, mutable = even(trained)
  _, aux = gradients(trained.params, mutable, batch(), jax.random.key(3))
  z = encode(trained.params['encoder'])
  expected = update_codebook(book, z, nearest(z, book.embedding), 0.9)
  assert aux.metrics['codebook_restarted'] == 0
  for name, value in aux.mutable['codebook']['codebook'].items():
    np.testing.assert_allclose(value, getattr(expected, name), atol=1e-5, err_msg=name)
    assert (value != getattr(book, name)).any(), name


def test_evaluation_and_sampling_never_ask_for_a_mutable_collection(trained, monkeypatch):
  asked = []
  apply = nn.Module.apply

  def watched(self, *inputs, mutable=False, **options):
    asked.append(mutable)
    return apply(self, *inputs, mutable=mutable, **options)

  monkeypatch.setattr(nn.Module, 'apply', watched)
  monkeypatch.setattr(quantization, 'update_codebook', None)
  monkeypatch.setattr(quantization, 'restart_dead_codes', None)
  before = jax.tree.map(np.array, trained.variables)
  jax.eval_shape(
    lambda *given: calls.evaluate(objective(), *given),
    trained.variables,
    batch(),
    jax.random.key(0),
  )
  jax.eval_shape(
    lambda v, k: calls.sample(objective(), v, k, 4), trained.variables, jax.random.key(0)
  )
  assert asked and not any(asked)
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(trained.variables)):
    np.testing.assert_array_equal(a, b)


def test_restarts_are_drawn_anew_by_every_update_and_microbatch():
  def codes(rows, seed):
    _, aux = gradients(*fresh(), rows, jax.random.key(seed))
    assert aux.metrics['codebook_restarted'] > 0.5
    return np.asarray(aux.mutable['codebook']['codebook']['embedding'])

  shifted = {**batch(), 'position': batch()['position'] + 1}
  np.testing.assert_array_equal(codes(batch(), 0), codes(batch(), 0))
  assert (codes(batch(), 0) != codes(batch(), 1)).any()
  assert (codes(batch(), 0) != codes(shifted, 0)).any()


def test_microbatches_pass_the_codebook_along(trained):
  player = objective().players[0]
  book, mutable = even(trained)
  moved = {m: trained.params[m] for m in player.moves}

  def loss(moved, mutable, rows, context):
    value, aux = player.loss({**trained.params, **moved}, mutable, rows, context)
    return value, Aux(aux.metrics, {**mutable, **aux.mutable}, aux.weight)

  data, context = given(batch(), jax.random.key(0))
  accumulated = jax.jit(lambda mutable: mean_gradient(loss, moved, mutable, data, context, 2)[2])
  after = accumulated(mutable)
  features = encode(trained.params['encoder'])
  for piece in (features[::2], features[1::2]):
    book = update_codebook(book, piece, nearest(piece, book.embedding), 0.9)
  for name, value in after['codebook']['codebook'].items():
    np.testing.assert_allclose(value, getattr(book, name), atol=1e-5, err_msg=name)


def test_evaluate_is_per_example_and_its_parts_add_up(trained):
  values = evaluate(trained.variables, batch(), jax.random.key(0))
  assert {v.shape for v in values.values()} == {(8,)}
  np.testing.assert_allclose(values['elbo'], -(values['reconstruction'] + values['rate']))
  np.testing.assert_allclose(values['bits_per_dim'], -values['elbo'] / 64 / np.log(2), rtol=1e-5)
  # An even choice at every place would cost this; the marginals know better.
  assert 0 < values['rate'].mean() < 4 * np.log(CODES)
  p = np.asarray(trained.book.counts / trained.book.counts.sum(), np.float64) + 1e-12
  np.testing.assert_allclose(
    values['codebook_perplexity'], np.exp(-(p * np.log(p)).sum()), rtol=1e-4
  )
  assert abs(values['reconstruction'].mean() - trained.history[-1]['reconstruction']) < 2


def test_samples_follow_the_marginals_and_a_longer_draw_begins_alike(trained):
  images = sample(trained.variables, jax.random.key(1), 4)
  assert images.shape == (4, *SHAPE)
  longer = sample(trained.variables, jax.random.key(1), 7)
  np.testing.assert_allclose(longer[:4], images, atol=1e-6)
  assert np.abs(sample(trained.variables, jax.random.key(2), 4) - images).max() > 1e-3
  # All mass on one code at each place: most samples are that map, decoded.
  chosen = jnp.array([[3, 1], [0, 2]])
  book = trained.book._replace(positions=1e6 * jax.nn.one_hot(chosen, CODES))._asdict()
  fixed = {**trained.variables, 'codebook': {'params': {}, 'codebook': book}}
  outputs = decode(trained.params['decoder'], book['embedding'][chosen][None])
  expected = jnp.broadcast_to(jax.nn.sigmoid(outputs[..., 0]), (4, *SHAPE))
  np.testing.assert_allclose(sample(fixed, jax.random.key(1), 4), expected, atol=1e-5)


def test_reconstructions_stand_under_their_originals(trained):
  drawing = objective().pictures['reconstruct']
  keys = jax.random.split(jax.random.key(0), 8)
  picture = jax.jit(drawing.render, static_argnums=3)(trained.variables, batch(), keys, 5)
  assert picture.shape == (2, 5, *SHAPE)
  np.testing.assert_array_equal(picture[0], batch()['image'][:5])
  np.testing.assert_allclose(
    jnp.square(picture[0] - picture[1]).mean(axis=(1, 2, 3)),
    evaluate(trained.variables, batch(), jax.random.key(0))['mse'][:5],
    rtol=1e-4,
  )
  ones, twos = jnp.zeros((3, 1, 1, 1)), jnp.full((3, 1, 1, 1), 0.5)
  rows = stack_pairs(ones, twos, columns=2)[..., 0, 0, 0]
  np.testing.assert_array_equal(rows, [[0, 0], [0.5, 0.5], [0, 1], [0.5, 1]])


@pytest.mark.parametrize('reconstruction, outputs', [('gaussian', 2), ('categorical', 256)])
def test_the_decoder_gives_what_the_likelihood_reads(reconstruction, outputs):
  assert objective(reconstruction=reconstruction).modules['decoder'].outputs == outputs


@pytest.mark.parametrize('widths', [(8,), (8, 8, 8)])
def test_a_decoder_that_makes_images_of_another_size_is_named(widths):
  decoder = vqvae.Decoder(widths=widths, blocks=0, hidden=4, image_shape=SHAPE)
  side = SHAPE[0] // 4 * 2 ** len(widths)
  codes = jnp.zeros((1, SHAPE[0] // 4, SHAPE[1] // 4, 3))
  with pytest.raises(UserError, match=f'{len(widths)} widths .* of {side} × {side}, .* encoder'):
    decoder.init(jax.random.key(0), codes, train=False)


def test_a_mistake_is_named():
  with pytest.raises(UserError, match='did you mean "bernoulli"'):
    objective(reconstruction='bernouli')
