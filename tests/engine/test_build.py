"""Names of a config become objects, with what the engine knows filled in."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from engine.build import build, to_plain
from errors import UserError

KNOWN = {'image_shape': (4, 4, 1), 'dtype': jnp.bfloat16, 'vocabulary': 9}
GENERATOR = dict(name='mlp.Generator', widths=(8,), activation='relu')


def test_a_declared_field_is_filled_in_and_others_are_left_out():
  module = build(GENERATOR, 'models', 'config.modules.generator', KNOWN)
  assert module.image_shape == (4, 4, 1) and module.dtype is jnp.bfloat16
  assert 'vocabulary' not in vars(module)


def test_a_value_of_the_config_comes_first():
  spec = dict(GENERATOR, dtype=jnp.float32)
  assert build(spec, 'models', 'config.modules.generator', KNOWN).dtype is jnp.float32


@pytest.mark.parametrize(
  ('name', 'room', 'others'),
  [
    ('base.Evaluator', 'engine.evaluators', 'examples, measure, samples, speed$'),
    ('examples.OverSplit', 'engine.evaluators', 'examples.Examples'),
    ('examples.build_metric', 'engine.evaluators', 'examples.Examples'),
    ('base.Objective', 'objectives', 'causal_lm, cgan, classify, .*, vqvae$'),
    ('base.Captions', 'objectives', 'causal_lm'),
    ('base.Value', 'metrics', 'accuracy_score'),
    ('charts.curves', 'metrics', 'accuracy_score'),
    ('pooling.mean', 'models', 'cnn'),
    ('loop.train', 'engine', 'gradients.mean$'),
    ('gradients.mean_gradient', 'engine', 'gradients.mean$'),
  ],
)
def test_parents_results_and_functions_are_not_to_be_named(name, room, others):
  with pytest.raises(UserError, match=rf'^config\.m\.name={name} names nothing.*; try: .*{others}'):
    build(dict(name=name), room, 'config.m')


def test_an_unknown_keyword_names_those_there_are():
  wrong = r'config\.m has no option "width" \(did you mean "widths"\?\); it takes: .*image_shape'
  with pytest.raises(UserError, match=wrong):
    build(dict(GENERATOR, width=8), 'models', 'config.m', KNOWN)


def test_values_of_declared_fields_are_checked():
  spec = dict(name='cnn.CNN', channels=(4, 0), kernel=3, widths=(8,), activation='relu')
  with pytest.raises(UserError, match=r'^config.m.channels=4,0: 0 must be at least 1$'):
    build(spec, 'models', 'config.m')
  with pytest.raises(UserError, match=r'^config.m.dropout=50 must be at least 0 and below 1$'):
    build({**spec, 'channels': 4, 'dropout': 50}, 'models', 'config.m')


def test_scalars_of_numpy_and_jax_are_numbers():
  values = to_plain(ConfigDict(dict(a=np.float32(0.5), b=[np.int64(3)], c=jnp.float32(2), d='x')))
  assert values == dict(a=0.5, b=(3,), c=2.0, d='x')
  assert [type(values[name]) for name in 'ac'] == [float, float] and type(values['b'][0]) is int
