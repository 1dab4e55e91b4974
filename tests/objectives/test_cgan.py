import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models import dcgan, mlp
from objectives.base import numbered_keys
from objectives.cgan import CGAN
from objectives.gan import GAN
from tests.objectives.calls import evaluate, given, render, sample

SHAPE = (8, 8, 1)
PIXELS = 64
# No other axis of a parameter is this long.
CLASSES = 5
LATENTS = 8
# In no order; the classes 2 and 4 are absent.
LABELS = np.array([3, 1, 0, 3, 1, 1], np.int32)

DENSE = {
  'generator': mlp.Generator((7,), 'relu', SHAPE, num_classes=CLASSES, embedding_size=3),
  'discriminator': mlp.Discriminator((7,), 'relu', num_classes=CLASSES, embedding_size=2),
}
CONVOLUTIONAL = {
  'generator': dcgan.Generator((4, 2), SHAPE, num_classes=CLASSES),
  'discriminator': dcgan.Discriminator((3, 4), 'batch', num_classes=CLASSES),
}
FAMILIES = pytest.mark.parametrize(
  'modules', [DENSE, CONVOLUTIONAL], ids=['dense', 'convolutional']
)


def cgan(modules=DENSE, **options):
  settings = dict(
    loss='non_saturating',
    penalties={},
    penalty_every=1,
    n_critic=1,
    latent_size=LATENTS,
    num_classes=CLASSES,
  )
  return CGAN(modules=modules, **{**settings, **options})


def batch():
  image = np.random.default_rng(7).random((len(LABELS), *SHAPE), np.float32)
  return {'image': image, 'label': LABELS, 'position': np.arange(len(LABELS))}


def drawn(init, *inputs, **options):
  """Variables of the shapes that `init` makes, all different: no class is like another."""
  rng = np.random.default_rng(8)
  wanted = jax.eval_shape(lambda: init(jax.random.key(0), *inputs, **options))

  def values(path, leaf):
    positive = path[-1].key in ('scale', 'var')
    return jnp.asarray(rng.uniform(0.5 if positive else -0.4, 1 if positive else 0.4, leaf.shape),
                       leaf.dtype)  # fmt: skip

  return jax.tree.map_with_path(values, wanted)


def variables_of(objective):
  return drawn(objective.init, batch())


def split(variables):
  params = {m: v['params'] for m, v in variables.items()}
  return params, {m: {k: x for k, x in v.items() if k != 'params'} for m, v in variables.items()}


def shapes(variables):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
  }


# --- the networks


@pytest.mark.parametrize(
  'module, inputs, wanted',
  [
    (
      DENSE['generator'],
      (1, LATENTS),
      {'hidden_0/kernel': (LATENTS, 7), 'hidden_0/bias': (7,), 'output/kernel': (7, PIXELS),
       'output/bias': (PIXELS,)},
    ),
    (
      DENSE['discriminator'],
      (1, *SHAPE),
      {'hidden_0/kernel': (PIXELS, 7), 'hidden_0/bias': (7,), 'output/kernel': (7, 1),
       'output/bias': (1,)},
    ),
    (
      CONVOLUTIONAL['generator'],
      (1, LATENTS),
      {'project/kernel': (LATENTS, 16), 'norm_0/scale': (4,), 'norm_0/bias': (4,),
       'norm_1/scale': (2,), 'norm_1/bias': (2,), 'up_0/kernel': (4, 4, 4, 2),
       'up_1/kernel': (4, 4, 2, 1), 'up_1/bias': (1,)},
    ),
    (
      CONVOLUTIONAL['discriminator'],
      (1, *SHAPE),
      {'down_0/kernel': (4, 4, 1, 3), 'down_0/bias': (3,), 'down_1/kernel': (4, 4, 3, 4),
       'norm_1/scale': (4,), 'norm_1/bias': (4,), 'output/kernel': (16, 1), 'output/bias': (1,)},
    ),
  ],
)  # fmt: skip
def test_without_labels_the_parameters_are_those_of_old_checkpoints(module, inputs, wanted):
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros(inputs), None, train=False)
  )
  assert shapes(variables['params']) == wanted


@FAMILIES
def test_the_label_of_a_row_changes_that_row_alone(modules):
  variables = variables_of(cgan(modules))
  inputs = {
    'generator': jax.random.normal(jax.random.key(1), (6, LATENTS)),
    'discriminator': batch()['image'],
  }

  @jax.jit
  def outputs(labels):
    return {
      name: module.apply(variables[name], inputs[name], labels, train=False)
      for name, module in modules.items()
    }

  before, after = outputs(LABELS), outputs(np.where(np.arange(6) == 1, 2, LABELS))
  for name in modules:
    moved = np.abs(after[name] - before[name]).reshape(6, -1).max(axis=1)
    assert moved[1] > 1e-3 and (np.delete(moved, 1) < 1e-6).all(), name


def dense(params, x):
  return np.asarray(x, np.float64) @ np.asarray(params['kernel']) + np.asarray(params['bias'])


def test_dense_networks_read_the_embedding_behind_their_input():
  variables = variables_of(cgan())
  latents = np.asarray(jax.random.normal(jax.random.key(1), (6, LATENTS)))
  images = np.asarray(batch()['image'])

  def hand(params, x):
    x = np.concatenate([x, np.asarray(params['label']['embedding'])[LABELS]], axis=1)
    return dense(params['output'], np.maximum(dense(params['hidden_0'], x), 0))

  generated = DENSE['generator'].apply(variables['generator'], latents, LABELS, train=False)
  expected = 1 / (1 + np.exp(-hand(variables['generator']['params'], latents)))
  np.testing.assert_allclose(generated, expected.reshape(6, *SHAPE), rtol=1e-5)
  logits = DENSE['discriminator'].apply(variables['discriminator'], images, LABELS, train=False)
  expected = hand(variables['discriminator']['params'], images.reshape(6, -1))
  np.testing.assert_allclose(logits, expected[:, 0], rtol=1e-5)


def test_embeddings_start_out_like_the_latents_and_the_projection_like_dcgan_s_weights():
  dense = mlp.Generator((), 'relu', SHAPE, num_classes=50, embedding_size=200)
  projecting = dcgan.Discriminator((), 'batch', num_classes=100)

  @jax.jit
  def embeddings(key):
    fresh = (
      dense.init(key, jnp.zeros((1, 2)), LABELS[:1], train=False),
      projecting.init(key, jnp.zeros((1, 10, 10, 1)), LABELS[:1], train=False),
    )
    return [variables['params']['label']['embedding'] for variables in fresh]

  embedding, projection = map(np.asarray, embeddings(jax.random.key(0)))
  np.testing.assert_allclose([embedding.mean(), embedding.std()], [0, 1], atol=0.03)
  assert projection.shape == (100, 100)
  np.testing.assert_allclose([projection.mean(), projection.std()], [0, 0.02], atol=6e-4)


def test_the_projection_adds_the_product_of_embedding_and_features():
  """Miyato and Koyama 2018, eq. 3, with linen's own convolution under it."""
  module = dcgan.Discriminator((3,), 'none', num_classes=CLASSES)
  images = batch()['image']
  variables = drawn(module.init, images, LABELS, train=False)
  params = variables['params']
  maps = nn.Conv(3, (4, 4), strides=(2, 2)).apply({'params': params['down_0']}, 2 * images - 1)
  features = np.asarray(nn.leaky_relu(maps, 0.2), np.float64).reshape(6, -1)
  embedding = np.asarray(params['label']['embedding'])[LABELS]
  expected = dense(params['output'], features)[:, 0] + (embedding * features).sum(axis=1)
  np.testing.assert_allclose(
    module.apply(variables, images, LABELS, train=False), expected, rtol=1e-5
  )


def test_conditional_batch_normalisation_is_the_formula():
  """Statistics of all rows, then the row's own scale and bias (Dumoulin et al. 2017)."""
  module = dcgan.ConditionalBatchNorm(CLASSES)
  x = np.random.default_rng(1).normal(2, 3, (6, 2, 2, 3)).astype(np.float32)
  variables = drawn(module.init, x, LABELS, train=False)

  @jax.jit
  def applied(variables):
    return (
      module.apply(variables, x, LABELS, train=True, mutable=['batch_stats']),
      module.apply(variables, x, LABELS, train=False),
      module.init(jax.random.key(0), x, LABELS, train=False)['params'],
    )

  (trained, changed), sampled, fresh = jax.device_get(applied(variables))
  scale, bias = (
    np.asarray(variables['params'][name])[LABELS][:, None, None] for name in ('scale', 'bias')
  )

  def formula(mean, variance):
    return scale * (x - np.asarray(mean)) / np.sqrt(np.asarray(variance) + 1e-5) + bias

  mean, variance = (f(x, axis=(0, 1, 2), dtype=np.float64) for f in (np.mean, np.var))
  running, after = variables['batch_stats']['batch'], changed['batch_stats']['batch']
  np.testing.assert_allclose(trained, formula(mean, variance), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(after['mean'], 0.9 * running['mean'] + 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(
    sampled, formula(running['mean'], running['var']), rtol=1e-4, atol=1e-5
  )
  # The labels begin apart, about a scale of 1 and a bias of 0.
  for name, middle in (('scale', 1), ('bias', 0)):
    assert fresh[name].shape == (CLASSES, 3)
    assert 0.1 < (fresh[name] - middle).std() < 0.6 and abs(fresh[name].mean() - middle) < 0.4


@FAMILIES
def test_bfloat16_keeps_float32_parameters_and_results(modules):
  def run():
    objective = cgan({name: m.clone(dtype=jnp.bfloat16) for name, m in modules.items()})
    variables = objective.init(jax.random.key(0), batch())
    values = evaluate(objective, variables, batch(), jax.random.key(1))
    return variables, values, sample(objective, variables, jax.random.key(1), 3)

  assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(run))} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  'module, size, part',
  [
    (DENSE['generator'].clone(embedding_size=0), (1, LATENTS), 'Generator .* embedding_size=0'),
    (DENSE['discriminator'].clone(embedding_size=-2), (1, *SHAPE), 'embedding_size=-2 must be at'),
    (DENSE['discriminator'].clone(num_classes=0), (1, *SHAPE), 'Discriminator .* num_classes=0'),
    (CONVOLUTIONAL['generator'].clone(num_classes=0), (1, LATENTS), 'num_classes=0 of a module'),
    (CONVOLUTIONAL['discriminator'].clone(num_classes=0), (1, *SHAPE), 'num_classes=0 of a module'),
  ],
)
def test_impossible_sizes_are_named(module, size, part):
  with pytest.raises(UserError, match=part):
    jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(size), LABELS[:1], train=False))


# --- the objective, with networks simple enough to write its losses down


class LabelPainter(nn.Module):
  """Images all of the grey slope · label; the latents play no part."""

  @nn.compact
  def __call__(self, latents, labels, train):
    slope = self.param('slope', nn.initializers.ones, ())
    return jnp.broadcast_to((slope * labels)[:, None, None, None], (len(latents), *SHAPE))


class LabelJudge(nn.Module):
  """Logit = slope · (label + 1) · ½‖image‖² + label."""

  @nn.compact
  def __call__(self, images, labels, train):
    slope = self.param('slope', nn.initializers.ones, ())
    return slope * (labels + 1) * 0.5 * jnp.square(images).sum(axis=(1, 2, 3)) + labels


TRANSPARENT = {'generator': LabelPainter(), 'discriminator': LabelJudge()}
SLOPES = {'generator': {'params': {'slope': 0.2}}, 'discriminator': {'params': {'slope': 0.01}}}
PENALTIES = ('r1', 'r2')
# ‖image‖² of the batch's images and of the generated ones.
SQUARES = np.square(batch()['image']).sum(axis=(1, 2, 3)), np.square(0.2 * LABELS) * PIXELS


def by_hand():
  """Logits of the batch's images and of the generated ones, [B]."""
  return tuple(0.01 * (LABELS + 1) * 0.5 * squares + LABELS for squares in SQUARES)


def softplus(x):
  return np.log1p(np.exp(x))


@pytest.fixture(scope='module')
def transparent():
  """What the objective makes of the networks above, by the name of what was asked."""
  objective = cgan(TRANSPARENT, penalties=dict.fromkeys(PENALTIES, 1.0))

  @jax.jit
  def everything(variables):
    params, mutable = split(variables)
    key = jax.random.key(3)
    judge, paint = (
      player.loss(params, mutable, *given(batch(), key)) for player in objective.players
    )
    return {
      'discriminator loss': judge[0],
      'discriminator metrics': judge[1].metrics,
      'generator loss': paint[0],
      'evaluate': evaluate(objective, variables, batch(), key),
      'interpolate': render(objective, 'interpolate', variables, batch(), key, 6),
    }

  return everything(SLOPES)


def test_both_losses_tell_both_networks_the_label_of_the_example(transparent):
  real, fake = by_hand()
  metrics = transparent['discriminator metrics']
  adversarial = transparent['discriminator loss'] - sum(metrics[name] for name in PENALTIES)
  np.testing.assert_allclose(adversarial, (softplus(-real) + softplus(fake)).mean(), rtol=1e-5)
  np.testing.assert_allclose(metrics['real_logit'], real.mean(), rtol=1e-5)
  np.testing.assert_allclose(metrics['fake_logit'], fake.mean(), rtol=1e-5)
  np.testing.assert_allclose(transparent['generator loss'], softplus(-fake).mean(), rtol=1e-5)


def test_evaluate_compares_images_of_the_same_label(transparent):
  real, fake = by_hand()
  expected = {
    'real_logit': real,
    'fake_logit': fake,
    'generator_loss': softplus(-fake),
    'discriminator_loss': softplus(-real) + softplus(fake),
  }
  assert expected.keys() == transparent['evaluate'].keys()
  for name, values in expected.items():
    np.testing.assert_allclose(transparent['evaluate'][name], values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize('name, squares', zip(PENALTIES, SQUARES))
def test_a_penalty_knows_the_label_of_each_image(transparent, name, squares):
  """The gradient of a logit is slope · (label + 1) · image."""
  expected = 0.5 * np.square(0.01 * (LABELS + 1)) * squares
  np.testing.assert_allclose(transparent['discriminator metrics'][name], expected.mean(), rtol=1e-5)


def test_a_row_of_an_interpolation_keeps_its_label(transparent):
  grey = 0.2 * np.array([0, 1, 2, 3, 4, 0])[:, None, None, None, None]
  expected = np.broadcast_to(grey, (6, 11, *SHAPE))
  np.testing.assert_allclose(transparent['interpolate'], expected, rtol=1e-6)


@FAMILIES
def test_gradients_reach_what_belongs_to_the_labels_of_the_batch(modules):
  objective = cgan(modules)
  params, mutable = split(variables_of(objective))

  def gradients(params):
    losses = {
      player.name: lambda p, loss=player.loss: loss(p, mutable, *given(batch(), jax.random.key(3)))[
        0
      ]
      for player in objective.players
    }
    return {name: jax.grad(loss)(params)[name] for name, loss in losses.items()}

  # It runs once: compiling it well would cost more than it saves.
  compiled = jax.jit(gradients)
  for name, gradient in compiled(params).items():
    tables = [table for table in jax.tree.leaves(gradient) if table.shape[0] == CLASSES]
    assert tables, name
    for table in tables:
      touched = np.abs(table).max(axis=1) > 0
      np.testing.assert_array_equal(touched, [True, True, False, True, False], name)


# --- drawing


@FAMILIES
def test_sample_draws_the_class_it_is_asked_for(modules):
  objective = cgan(modules)
  variables, key = variables_of(objective), jax.random.key(1)
  latents = jax.vmap(lambda k: jax.random.normal(k, (LATENTS,)))(numbered_keys(key, jnp.arange(6)))

  @jax.jit
  def generated(labels):
    return modules['generator'].apply(variables['generator'], latents, labels, train=False)

  @jax.jit
  def samples():
    return {
      'threes': sample(objective, variables, key, 6, label=3),
      'in turn': sample(objective, variables, key, 6),
      'fewer': sample(objective, variables, key, 3),
    }

  in_turn = generated(np.array([0, 1, 2, 3, 4, 0], np.int32))
  wanted = {
    'threes': generated(np.full(6, 3, np.int32)),
    'in turn': in_turn,
    'fewer': in_turn[:3],
  }
  for name, images in samples().items():
    np.testing.assert_allclose(images, wanted[name], atol=1e-6, err_msg=name)
  assert np.abs(wanted['threes'] - in_turn).reshape(6, -1).max(axis=1)[[0, 1, 2, 4, 5]].min() > 1e-3


@pytest.mark.parametrize('label, named', [(5, 5), (-1, -1)])
def test_a_label_that_is_no_class_is_named(label, named):
  with pytest.raises(UserError, match=f'--label={named} must be at least 0 and at most 4'):
    sample(cgan(TRANSPARENT), SLOPES, jax.random.key(0), 4, label=label)


def test_data_without_classes_are_refused():
  with pytest.raises(UserError, match='the data set has none; use gan'):
    cgan(num_classes=0)


@FAMILIES
def test_a_gan_tells_these_modules_nothing(modules):
  plain = GAN(
    modules=modules,
    loss='hinge',
    penalties={'r1': 1.0},
    penalty_every=1,
    n_critic=1,
    latent_size=LATENTS,
  )
  found = jax.eval_shape(lambda: plain.init(jax.random.key(0), batch()))
  assert CLASSES not in {leaf.shape[0] for leaf in jax.tree.leaves(found)}
  told = jax.eval_shape(lambda: cgan(modules).init(jax.random.key(0), batch()))
  assert CLASSES in {leaf.shape[0] for leaf in jax.tree.leaves(told)}


@pytest.mark.parametrize('norm', ['batch', 'none'])
def test_without_batch_normalisation_an_image_s_logit_depends_on_it_alone(norm):
  module = dcgan.Discriminator((3, 4), norm, num_classes=CLASSES)
  images = batch()['image']
  variables = module.init(jax.random.key(0), images, LABELS, train=False)
  apply = functools.partial(module.apply, variables, train=True, mutable=['batch_stats'])
  whole, part = (apply(images[:n], LABELS[:n])[0] for n in (6, 3))
  assert np.allclose(whole[:3], part, rtol=1e-5) == (norm == 'none')
  assert ('batch_stats' in variables) == (norm == 'batch')
