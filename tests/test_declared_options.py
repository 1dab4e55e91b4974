"""What a module, an objective or a metric takes from a config is declared, and checked before it
is built."""

import math

import jax.numpy as jnp
import pytest

from engine.build import build, parameters, resolve, to_plain
from errors import UserError
from options import declared_options
from tests.golden.tiny import CONFIGS, config_for, config_of

# The packages, and what the engine and the objective fill in of what they hold.
FILLED = {
  'models': {
    'image_shape', 'num_classes', 'vocabulary', 'dtype', 'fused', 'batch_sharding', 'outputs',
    'pool',
  },
  'objectives': {'modules', 'image_shape', 'num_classes', 'vocabulary', 'specials', 'token_bytes'},
  'metrics': set(),
  'metrics.features': set(),
}  # fmt: skip
PROVIDED = {
  'modules': {}, 'image_shape': (28, 28, 1), 'num_classes': 10, 'vocabulary': 9, 'specials': {},
  'token_bytes': None, 'dtype': jnp.float32, 'fused': False, 'batch_sharding': None,
}  # fmt: skip
WHERE = 'config.x'
# Metrics, whether or not a config names them.
METRICS = (
  dict(name='classes_hit'),
  dict(name='duplicates', most=1000, quantile=0.01),
  dict(name='inception_score'),
  dict(name='kid', most=1000),
  dict(name='memorisation', most=1000, quantile=0.01),
  dict(name='mind', most=1000, projections=100, seed=0),
  dict(name='prdc', most=1001, k=3),
  dict(name='vendi'),
)


def named_in(config):
  """The sections of a config that name a module, an objective, a metric or features, each with the
  package that it is looked up in."""
  for spec in config.modules.values():
    yield 'models', spec
  yield 'objectives', config.objective
  for evaluator in config.evaluators.values():
    if 'features' in evaluator:
      yield 'metrics.features', evaluator.features
    for spec in evaluator.get('metrics', {}).values():
      yield 'metrics', spec


def things():
  """Whatever a config names, once: {name: (room, spec)}."""
  found = {}
  configs = (*map(config_for, CONFIGS), config_of('tabular', 'diabetes'))
  specs = [named for config in configs for named in named_in(config)]
  for room, spec in (*specs, *(('metrics', spec) for spec in METRICS)):
    spec = to_plain(spec)
    target = resolve(spec['name'], room, WHERE)
    name = f'{target.__module__}.{target.__qualname__}'
    # The one that gives most options.
    found[name] = max(found.get(name, (room, {})), (room, spec), key=lambda entry: len(entry[1]))
  return found


THINGS = things()


def target_of(name):
  room, spec = THINGS[name]
  return resolve(spec['name'], room, WHERE)


def options_of(kinds):
  """(thing, option) of every declared option of these types."""
  return [
    (name, key)
    for name in THINGS
    for key, declared in declared_options(target_of(name)).items()
    if declared.type in kinds
  ]


def refusal(name, key, value):
  """What is said of a thing whose option `key` has a value; its other options are right."""
  room, spec = THINGS[name]
  declared = declared_options(target_of(name))[key]
  given = {'list': (value,), 'mapping': {'r1': value}}.get(declared.each, value)
  with pytest.raises(UserError) as refused:
    build({**spec, key: given}, room, WHERE, PROVIDED)
  return str(refused.value)


@pytest.mark.parametrize('name', THINGS)
def test_every_option_is_declared(name):
  room, spec = THINGS[name]
  declared = declared_options(target_of(name))
  assert {*spec} - {'name'} <= {*declared}
  assert {*parameters(target_of(name))} - FILLED[room] == {*declared}
  assert all(option.doc.endswith('.') for option in declared.values())


@pytest.mark.parametrize(('name', 'key'), options_of((int, float)))
def test_a_number_without_sense_is_refused(name, key):
  declared = declared_options(target_of(name))[key]
  bounds = (
    (declared.low, lambda low: low - 1),
    (declared.above, lambda above: above),
    (declared.high, lambda high: high + 1),
    (declared.below, lambda below: below),
  )
  outside = [beyond(bound) for bound, beyond in bounds if bound is not None]
  # No size, count, share or weight of ours may be below 0.
  assert declared.low is not None or declared.above is not None
  for value in (*outside, -3):
    assert refusal(name, key, value).startswith(f'{WHERE}.{key}')
  for value in (math.nan, math.inf, -math.inf, 'many', None, True):
    said = refusal(name, key, value)
    assert said.startswith(f'{WHERE}.{key}') and str(value) in said
  if declared.type is int:
    assert refusal(name, key, 1.5).endswith('must be a whole number')


@pytest.mark.parametrize(('name', 'key'), options_of((str, bool)))
def test_a_word_or_a_switch_of_another_type_is_refused(name, key):
  declared = declared_options(target_of(name))[key]
  for value in (3, None, *([] if declared.type is bool else [True])):
    assert refusal(name, key, value).startswith(f'{WHERE}.{key}')
  if declared.type is bool:
    assert refusal(name, key, 'yes').endswith('must be True or False')
  if declared.choices:
    assert refusal(name, key, f'{declared.choices[0]}x').startswith(f'{WHERE}.{key}=')


# Ranges, so that a declaration without one, or with another, is noticed.
@pytest.mark.parametrize(
  ('name', 'key', 'value', 'range_'),
  [
    ('models.mlp.MLP', 'widths', (8, 0), 'at least 1'),
    ('models.mlp.MLP', 'dropout', 1.0, 'at least 0 and below 1'),
    ('models.mlp.Discriminator', 'embedding_size', -1, 'at least 0'),
    ('models.mlp.Encoder', 'latent_size', 0, 'at least 1'),
    ('models.transformer.Transformer', 'hidden', -1, 'at least 0'),
    ('models.transformer.Transformer', 'layers', -1, 'at least 1 and at most 1000'),
    ('models.transformer.Transformer', 'layers', 10**9, 'at least 1 and at most 1000'),
    ('models.transformer.Transformer', 'norm_epsilon', 0.0, 'above 0'),
    ('models.transformer.Transformer', 'norm', 'layr', 'one of layer, rms (did you mean "layer"?)'),
    ('models.rnn.RNN', 'cell', 'ltsm', 'one of tanh, sigmoid, gru, lstm (did you mean "lstm"?)'),
    ('models.cnn.CNN', 'kernel', 10**9, 'at least 1 and at most 255'),
    ('models.resnet.ResNet', 'blocks', (1, 0, 1), 'at least 1 and at most 1000'),
    ('models.vqvae.Codebook', 'codes', 1, 'at least 2'),
    ('models.mlp.MLP', 'widths', (8, 2**31), 'at most 2147483647'),
    ('objectives.vae.VAE', 'kl_warmup', 10**40, 'at most 2147483647'),
    ('objectives.vae.VAE', 'free_bits', 1e39, 'a finite number that float32 holds'),
    ('objectives.vae.VAE', 'kl_weight', 10**40, 'a finite number that float32 holds'),
    ('models.pseudo_inputs.PseudoInputs', 'spread', 0.0, 'above 0'),
    ('objectives.classify.Classify', 'label_smoothing', 1.0, 'at least 0 and below 1'),
    ('objectives.classify.Classify', 'class_weights', (1.0, -1.0), 'at least 0'),
    ('objectives.seq_classify.SeqClassify', 'pool', 'none', 'one of first, last, mean'),
    ('objectives.masked_lm.MaskedLM', 'mask_rate', 0.0, 'above 0 and at most 1'),
    ('objectives.masked_lm.MaskedLM', 'mask_rate', 1.5, 'above 0 and at most 1'),
    ('objectives.masked_lm.MaskedLM', 'mask_token_fraction', -0.1, 'at least 0 and at most 1'),
    ('objectives.vae.VAE', 'kl_weight', -1.0, 'at least 0'),
    ('objectives.vae.VAE', 'kl_warmup', -1, 'at least 0'),
    ('objectives.vae.VAE', 'free_bits', -0.1, 'at least 0'),
    ('objectives.vae.VAE', 'variance', -1.0, 'at least 0'),
    ('objectives.iwae.IWAE', 'importance_samples', 0, 'at least 1'),
    ('objectives.vqvae.VQVAE', 'commitment_weight', -0.1, 'at least 0'),
    ('objectives.vqvae.VQVAE', 'decay', 1.0, 'at least 0 and below 1'),
    ('objectives.vqvae.VQVAE', 'restart_below', -1.0, 'at least 0 and below 1'),
    ('objectives.gan.GAN', 'n_critic', 0, 'at least 1 and at most 1000'),
    ('objectives.gan.GAN', 'penalty_every', 0, 'at least 1'),
    ('objectives.cgan.CGAN', 'latent_size', 0, 'at least 1'),
    ('metrics.accuracy_score.AccuracyScore', 'seed', 2**32, 'at least 0 and at most 4294967295'),
    ('metrics.calibration.Calibration', 'bins', 0, 'at least 1 and at most 1000'),
    ('metrics.groups.Gaps', 'resamples', 10, 'at least 100 and at most 1000000'),
    ('metrics.duplicates.Duplicates', 'quantile', 0.6, 'above 0 and at most 0.5'),
    ('metrics.kid.KID', 'most', 1, 'at least 2 and at most 10000000'),
    ('metrics.memorisation.Memorisation', 'quantile', 0.0, 'above 0 and at most 0.5'),
    ('metrics.mind.MIND', 'projections', 0, 'at least 1 and at most 100000'),
    ('metrics.mind.MIND', 'seed', 2**32, 'at least 0 and at most 4294967295'),
    ('metrics.prdc.PRDC', 'k', 0, 'at least 1 and at most 1000'),
    ('metrics.features.pixels.BlockMeans', 'side', 0, 'at least 1'),
  ],
)
def test_the_range_is_told(name, key, value, range_):
  room, spec = THINGS[name]
  with pytest.raises(UserError) as refused:
    build({**spec, key: value}, room, WHERE, PROVIDED)
  said = str(refused.value)
  assert said.startswith(f'{WHERE}.{key}=') and said.endswith(f' must be {range_}')


@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('models.mlp.MLP', 'widths'),
    ('models.cnn.CNN', 'channels'),
    ('models.resnet.ResNet', 'blocks'),
  ],
)
def test_a_list_of_layers_that_would_be_traced_for_hours(name, key):
  room, spec = THINGS[name]
  with pytest.raises(UserError, match=r'has 10000 values and must have at most 1000$') as refused:
    build({**spec, key: (1,) * 10_000}, room, WHERE, PROVIDED)
  assert len(str(refused.value)) < 2500


@pytest.mark.parametrize('activation', ['one_hot', 'logsumexp', 'standardize', 'rellu'])
@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('models.mlp.Generator', 'activation'),
    ('models.cnn.CNN', 'activation'),
    ('models.resnet.ResNet', 'activation'),
    ('models.transformer.Transformer', 'mlp'),
  ],
)
def test_what_is_no_activation(name, key, activation):
  said = refusal(name, key, activation)
  assert said.startswith(f'{WHERE}.{key}={activation} must be one of relu, leaky_relu, gelu, silu')


def test_the_weights_of_penalties_are_told_apart():
  room, spec = THINGS['objectives.gan.GAN']
  given = {**spec, 'penalties': {'r1': 1.0, 'dragan': -1.0}}
  with pytest.raises(UserError, match=r'^config\.x\.penalties\.dragan=-1\.0 must be at least 0$'):
    build(given, room, WHERE, PROVIDED)


def test_one_column_stands_for_a_list_of_it():
  room, spec = THINGS['metrics.groups.Gaps']
  assert build({**spec, 'by': 'label'}, room, WHERE).by == ('label',)
