"""Classification of texts: that of images, of a module that is told how long each text is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.build import build as from_config
from errors import UserError
from tests.objectives.models_of_text import Table, evaluation, training, transformer, variables

KEY = jax.random.key(0)
DATA = {
  'tokens': jnp.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]], jnp.int32),
  'length': jnp.array([4, 2, 1], jnp.int32),
  'label': jnp.array([0, 2, 1], jnp.int32),
  'position': jnp.arange(3),
}
OTHER = {**DATA, 'tokens': DATA['tokens'].at[1, 2:].set(9)}


def build(module=None, classes=3, **options):
  spec = dict(name='seq_classify', pool='mean', loss='softmax', label_smoothing=0.0)
  module = module or transformer(causal=False)
  provided = {'modules': {'model': module}, 'num_classes': classes, 'vocabulary': 11}
  spec = {**spec, 'class_weights': (), **options}
  return from_config(spec, 'objectives', 'config.objective', provided)


@pytest.mark.parametrize('pool', ['first', 'last', 'mean'])
def test_figures_are_those_of_the_pooled_outputs(pool):
  objective = build(pool=pool)
  given = variables(objective, DATA)
  module = transformer(causal=False, outputs=3, pool=pool)
  apply = jax.jit(lambda given: module.apply(given, DATA['tokens'], False, DATA['length']))
  logits = apply(given['model'])
  assert logits.shape == (3, 3)
  wanted = -np.asarray(jax.nn.log_softmax(logits))[np.arange(3), DATA['label']]
  said = evaluation(objective)(given, DATA, KEY)
  np.testing.assert_allclose(said['loss'], wanted, rtol=1e-5)
  np.testing.assert_allclose(said['probability'], jax.nn.softmax(logits), rtol=1e-5)
  np.testing.assert_array_equal(said['prediction'], np.argmax(logits, -1))
  loss, aux = training(objective)(given, DATA, KEY)
  np.testing.assert_allclose(loss, wanted.mean(), rtol=1e-5)
  np.testing.assert_allclose(aux.metrics['accuracy'], said['accuracy'].mean(), rtol=1e-6)


def test_padding_changes_nothing_in_training_and_after():
  objective = build()
  given = variables(objective, DATA)
  evaluate, loss = evaluation(objective), training(objective)
  said = [evaluate(given, data, KEY)['loss'] for data in (DATA, OTHER)]
  np.testing.assert_allclose(*said, rtol=1e-5)
  losses = [loss(given, data, KEY)[0] for data in (DATA, OTHER)]
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_smoothing_is_that_of_images():
  plain, smooth = build(), build(label_smoothing=0.3)
  given = variables(plain, DATA)
  loss, _ = training(smooth)(given, DATA, KEY)
  probability = np.asarray(evaluation(plain)(given, DATA, KEY)['probability'], np.float64)
  shares = 0.7 * np.eye(3)[DATA['label']] + 0.1
  np.testing.assert_allclose(loss, -(shares * np.log(probability)).sum(-1).mean(), rtol=1e-5)


def test_nothing_to_draw():
  assert build().sampler is None and not build().pictures


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(classes=0), 'the data has no classes'),
    (dict(input='image'), 'has no option "input"'),
  ],
)
def test_what_cannot_be(options, message):
  with pytest.raises(UserError, match=message):
    build(**options)


def test_data_without_text():
  data = {'image': jnp.zeros((1, 4, 4, 1)), 'label': jnp.zeros(1, jnp.int32)}
  with pytest.raises(UserError, match='the data has no "tokens"'):
    build(Table()).init(KEY, data)
