"""The objective against what its parts come to by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models.mlp import MLP
from objectives.classify import Classify
from tests.objectives.calls import evaluate, given, measure, render

KEY = jax.random.key(0)


def build(loss='softmax', classes=3, module=None, **options):
  settings = dict(input='image', label_smoothing=0.0, class_weights=())
  return Classify(
    modules={'model': module or MLP(widths=(8,), activation='tanh')},
    loss=loss,
    num_classes=classes,
    **{**settings, **options},
  )


def batch(rows=6, classes=3):
  rng = np.random.default_rng(1)
  return {
    'image': jnp.asarray(rng.random((rows, 4, 4, 1), np.float32)),
    'inputs': jnp.asarray(rng.random((rows, 5), np.float32)),
    'label': jnp.arange(rows, dtype=jnp.int32) % classes,
    'target': jnp.asarray(rng.random(rows, np.float32)),
    'position': jnp.arange(rows),
  }


def training_loss(objective, data):
  variables = objective.init(KEY, data)
  params = {'model': variables['model']['params']}
  (player,) = objective.players
  value, aux = player.loss(params, {'model': {}}, *given(data, KEY))
  return (
    value,
    aux,
    variables,
    objective.modules['model'].apply(variables['model'], data[objective.input], train=False),
  )


def cross_entropy(logits, shares):
  return -(shares * jax.nn.log_softmax(logits)).sum(-1)


def test_evaluate_says_loss_prediction_and_probability():
  objective, data = build(), batch()
  _, _, variables, logits = training_loss(objective, data)
  said = evaluate(objective, variables, data, KEY)
  probability = jax.nn.softmax(logits)
  np.testing.assert_allclose(said['probability'], probability, rtol=1e-5)
  np.testing.assert_array_equal(said['prediction'], np.argmax(logits, -1))
  np.testing.assert_allclose(
    said['loss'], -np.log(probability[np.arange(6), data['label']]), rtol=1e-4
  )
  np.testing.assert_array_equal(said['accuracy'], np.argmax(logits, -1) == data['label'])


def test_smoothing_and_class_weights_are_for_training_only():
  data, weights = batch(), (0.5, 2.0, 3.0)
  plain = build()
  objective = build(label_smoothing=0.3, class_weights=weights)
  value, aux, variables, logits = training_loss(objective, data)
  shares = jax.nn.one_hot(data['label'], 3) * 0.7 + 0.1
  wanted = (cross_entropy(logits, shares) * jnp.asarray(weights)[data['label']]).mean()
  np.testing.assert_allclose(value, wanted, rtol=1e-5)
  np.testing.assert_allclose(
    evaluate(objective, variables, data, KEY)['loss'],
    plain.evaluate(variables, data, KEY)['loss'],
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    aux.metrics['accuracy'], (np.argmax(logits, -1) == data['label']).mean(), rtol=1e-6
  )


def test_mixed_labels_share_the_loss():
  share = jnp.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
  data = batch()
  data = {**data, 'mixed_label': jnp.roll(data['label'], -1), 'mixed_share': share}
  value, _, _, logits = training_loss(build(), data)
  rows = np.arange(6)
  log_probability = jax.nn.log_softmax(logits)
  wanted = -(
    (1 - share) * log_probability[rows, data['label']]
    + share * log_probability[rows, data['mixed_label']]
  )
  np.testing.assert_allclose(value, wanted.mean(), rtol=1e-5)


def test_one_logit_for_two_classes():
  objective, data = build('binary', classes=2), batch(classes=2)
  value, _, variables, outputs = training_loss(objective, data)
  assert outputs.shape == (6, 1)
  probability = jax.nn.sigmoid(outputs[:, 0])
  wanted = -np.log(np.where(data['label'] == 1, probability, 1 - probability))
  np.testing.assert_allclose(value, wanted.mean(), rtol=1e-5)
  assert evaluate(objective, variables, data, KEY)['probability'].shape == (6, 2)


def test_regression_of_a_table():
  module = MLP(widths=(), activation='relu')
  objective, data = build('squared', classes=0, module=module, input='inputs'), batch()
  value, aux, variables, outputs = training_loss(objective, data)
  np.testing.assert_allclose(value, np.square(outputs[:, 0] - data['target']).mean(), rtol=1e-5)
  said = evaluate(objective, variables, data, KEY)
  assert said.keys() == {'loss', 'prediction'} and said['prediction'].shape == (6, 1)
  assert not aux.metrics and not objective.pictures


def test_dropout_is_for_training_only():
  module = MLP(widths=(64,), activation='relu', dropout=0.5)
  objective, data = build(module=module), batch()
  value, _, variables, logits = training_loss(objective, data)
  plain = cross_entropy(logits, jax.nn.one_hot(data['label'], 3)).mean()
  assert abs(float(value - plain)) > 1e-3
  first = evaluate(objective, variables, data, KEY)['loss']
  np.testing.assert_array_equal(
    first, evaluate(objective, variables, data, jax.random.key(9))['loss']
  )


def test_the_explained_score_is_the_predicted_class_s():
  class Linear(nn.Module):
    outputs: int = 1

    @nn.compact
    def __call__(self, images, train):
      return images.reshape(images.shape[0], -1) @ self.param(
        'kernel', nn.initializers.normal(), (16, self.outputs)
      )

  objective, data = build(module=Linear()), batch()
  variables = objective.init(KEY, data)
  pictures = render(objective, 'explain', variables, data, KEY, 4)
  assert pictures.shape == (4, 4, 4, 4, 3)
  grey = jnp.broadcast_to(data['image'][:4], (4, 4, 4, 3))
  np.testing.assert_allclose(pictures[:, 0], grey, atol=1e-6)
  assert float(pictures.min()) >= 0 and float(pictures.max()) <= 1
  # A linear model's saliency is its kernel's column of the predicted class, whatever the image.
  kernel = variables['model']['params']['kernel']
  logits = data['image'].reshape(6, -1) @ kernel
  from sampling import attributions, heat_maps

  wanted = jnp.abs(kernel[:, jnp.argmax(logits[:4], -1)]).T.reshape(4, 4, 4)
  np.testing.assert_allclose(
    pictures[:, 1], heat_maps.overlay(data['image'][:4], wanted), atol=1e-4
  )
  del attributions


@pytest.mark.parametrize(('loss', 'classes'), [('softmax', 3), ('binary', 2)])
def test_an_explanation_keeps_colours_and_says_what_is_predicted(loss, classes):
  objective, data = build(loss, classes), batch(classes=classes)
  data['image'] = jax.random.uniform(KEY, (6, 4, 4, 3))
  variables = objective.init(KEY, data)
  pictures = render(objective, 'explain', variables, data, KEY, 6)
  np.testing.assert_array_equal(pictures[:, 0], data['image'])
  said = evaluate(objective, variables, data, KEY)
  captions = objective.pictures['explain'].captions
  described = captions.describe(variables, data, None, 6)
  assert len(captions.columns) == pictures.shape[1]
  names = ('cat', 'dog', 'bird')
  wrong = 0
  for i in range(6):
    words = captions.row({name: np.asarray(each)[i] for name, each in described.items()}, names)
    predicted, label = int(said['prediction'][i]), int(data['label'][i])
    expected = f'{names[predicted]}: {said["probability"][i, predicted]:.3f}'
    assert words == expected + (f'\ntrue: {names[label]}' if label != predicted else '')
    wrong += label != predicted
  assert 0 < wrong < 6


@pytest.mark.parametrize('loss', ['softmax', 'squared'])
def test_views_average_the_outputs(loss):
  objective, data = build(loss=loss), batch()
  variables = objective.init(KEY, data)
  wide = np.pad(data['image'], ((0, 0), (1, 1), (1, 1), (0, 0)))
  moved = [wide[:, d : d + 4, r : r + 4] for d, r in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
  outputs = [
    objective.modules['model'].apply(variables['model'], jnp.asarray(view), train=False)
    for view in (*moved, *(one[:, :, ::-1] for one in moved))
  ]
  outputs = jnp.mean(jnp.stack(outputs), axis=0)
  said = measure(objective, 'views', variables, data, KEY, mirror=True, shift=1)
  if loss == 'squared':
    assert set(said) == {'loss'}
    wanted = (outputs[:, 0] - data['target']) ** 2
  else:
    np.testing.assert_array_equal(said['accuracy'], np.argmax(outputs, -1) == data['label'])
    wanted = cross_entropy(outputs, jax.nn.one_hot(data['label'], 3))
  np.testing.assert_allclose(said['loss'], wanted, rtol=1e-5)
  assert not build(loss='squared', classes=0, input='inputs').measurements


def test_a_shift_as_large_as_the_image_is_refused():
  objective, data = build(), batch()
  variables = objective.init(KEY, data)
  with pytest.raises(UserError, match='shifted by 4 pixels shows nothing of images of 4 × 4'):
    measure(objective, 'views', variables, data, KEY, shift=4)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(classes=0), 'the data has no classes'),
    (dict(classes=1), 'one class only'),
    (dict(loss='binary', classes=3), 'tells two classes apart and the data has 3'),
    (dict(loss='sofmax'), 'did you mean "softmax"'),
    (dict(label_smoothing=1.0), 'label_smoothing=1.0 must be from 0 to below 1'),
    (dict(class_weights=(1.0, 2.0)), 'has 2 entries, the data 3 classes'),
    (dict(class_weights=(1.0, 2.0, -1.0)), 'must be 0 or more'),
  ],
)
def test_what_cannot_be(options, message):
  with pytest.raises(UserError, match=message):
    build(**options)


@pytest.mark.parametrize(
  ('options', 'missing', 'message'),
  [
    (dict(), 'image', 'the data has no "image"'),
    (dict(), 'label', 'learns a "label"'),
    (dict(loss='squared'), 'target', 'learns a "target"'),
  ],
)
def test_what_the_data_lacks(options, missing, message):
  data = {name: value for name, value in batch().items() if name != missing}
  with pytest.raises(UserError, match=message):
    build(**options).init(KEY, data)
