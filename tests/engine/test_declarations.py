"""A config is checked whole before anything is opened, and every refusal names the key."""

import math

import pytest
from ml_collections import ConfigDict, config_dict

from configs import gan, gpt, mlp
from engine.declarations import check_config, options_at
from engine.sharding import check_rules
from errors import UserError
from tests.golden.tiny import CONFIGS, config_for


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_of_ours_is_right(name):
  check_config(config_for(name))


def changed(module, path, value):
  """The config of a module with another value at a path; `del` takes it away."""
  config = module.get_config().copy_and_resolve_references()
  *parents, key = path.split('.')
  node = config
  for part in parents:
    node = node[part]
  with config.unlocked(), config.ignore_type():
    if value is del_:
      del node[key]
    else:
      node[key] = value
  return config


del_ = object()
WRONG = [
  # A section that is none.
  (mlp, 'modules', None, 'config.modules=None must be a section of options'),
  (mlp, 'train', 3, 'config.train=3 must be a section of options'),
  (mlp, 'evaluators', (), 'config.evaluators=() must be a section of options'),
  (mlp, 'modules.model', None, 'config.modules.model=None must be a section of options'),
  (mlp, 'modules.model', 'mlp', 'config.modules.model=mlp must be a section of options'),
  (mlp, 'optimizer.model', None, "config.optimizer.model=None must be a section of options"),
  (mlp, 'optimizer.model.schedule', 'cosine', 'config.optimizer.model.schedule=cosine must be a'),
  (mlp, 'evaluators.test', None, 'config.evaluators.test=None must be a section of options'),
  (mlp, 'evaluators.test.metrics', None, 'config.evaluators.test.metrics=None must be a mapping'),
  (gan, 'evaluators.samples.features', None, 'config.evaluators.samples.features=None must be a s'),
  (gan, 'ema.generator', 0.999, 'config.ema.generator=0.999 must be a section of options'),
  (mlp, 'data.augment', None, 'config.data.augment=None must be a section of options'),
  (gpt, 'data.text', None, 'config.data.text=None must be a section of options'),
  (mlp, 'train.gradient', 'mean', 'config.train.gradient=mean must be a section of options'),
  # A name that figures and paths of parameters cannot hold.
  (mlp, 'evaluators.a/b', {}, 'config.evaluators has an entry called "a/b"; call it something of'),
  (mlp, 'evaluators.test.metrics.my f1', {}, 'test.metrics has an entry called "my f1"; call it'),
  (gan, 'ema.', {}, 'config.ema has an entry called ""; call it'),
  # A name that is missing, or none.
  (mlp, 'modules.model.name', del_, 'config.modules.model.name is missing'),
  (mlp, 'modules.model.name', None, 'config.modules.model.name=None must be a word'),
  (mlp, 'objective.name', del_, 'config.objective.name is missing'),
  (mlp, 'optimizer.model.name', del_, 'config.optimizer.model.name is missing'),
  (mlp, 'evaluators.test.name', 3, 'config.evaluators.test.name=3 must be a word'),
  (gan, 'evaluators.samples.metrics.fd.name', del_, 'samples.metrics.fd.name is missing'),
  (mlp, 'optimizer.model.schedule.name', del_, 'config.optimizer.model.schedule.name is missing'),
  # An option that is missing or unknown.
  (mlp, 'train.steps', del_, 'config.train.steps is missing; it must be a whole number: Length'),
  (mlp, 'train.step', 3, 'config.train has no option "step" (did you mean "steps"?)'),
  (mlp, 'data.augment.crops', 3, 'data.augment has no option "crops" (did you mean "crop"?)'),
  (mlp, 'reports', {}, 'config.reports is no section (did you mean "report"?)'),
  (mlp, 'seeds', del_, 'the config has no section "seeds"'),
  # Another type, not finite, or out of range.
  (mlp, 'train.steps', None, 'config.train.steps=None must be a whole number'),
  (mlp, 'train.steps', '300', 'config.train.steps=300 must be a whole number'),
  (mlp, 'train.seed', True, 'config.train.seed=True must be a whole number'),
  (mlp, 'train.minimum_gain', math.nan, 'config.train.minimum_gain=nan must be a finite number'),
  (mlp, 'train.precision', 'float16', 'config.train.precision=float16 must be one of float32,'),
  (mlp, 'seeds', None, 'config.seeds=None must be a whole number'),
  (mlp, 'seeds', 0, 'config.seeds=0 must be at least 1'),
  (mlp, 'profile', 'yes', 'config.profile=yes must be True or False'),
  (mlp, 'data.name', None, 'config.data.name=None must be a word'),
  (mlp, 'data.classes', ('a',), 'config.data.classes=a: a must be a whole number'),
  (mlp, 'data.columns', (3,), 'config.data.columns=3: 3 must be a word'),
  (mlp, 'data.folds', 1, 'config.data.folds=1 must be at least 2, or 0'),
  (mlp, 'data.fold', -2, 'config.data.fold=-2 must be at least 0, or -1'),
  (mlp, 'data.batch_size', 0, 'config.data.batch_size=0 must be at least 1'),
  (mlp, 'data.resident_mb', -1, 'config.data.resident_mb=-1 must be at least 0'),
  (mlp, 'data.augment.rotate', math.inf, 'config.data.augment.rotate=inf must be a finite number'),
  (gpt, 'data.text.rows', 'window', 'text.rows=window must be one of windows, documents (did you'),
  (gpt, 'data.text.length', 0, 'config.data.text.length=0 must be at least 1'),
  (gpt, 'data.text.stride', -1, 'config.data.text.stride=-1 must be at least 0'),
  (gpt, 'data.text.specials', ('ende',), 'specials=ende: ende must be one of end, pad'),
  (gan, 'ema.generator.decay', 1.0, 'config.ema.generator.decay=1.0 must be at least 0 and below'),
  (mlp, 'mesh.data', 0, 'config.mesh.data=0 must be at least 1, or -1'),
  (mlp, 'mesh.fsdp', 1.5, 'config.mesh.fsdp=1.5 must be a whole number'),
  (mlp, 'report', None, 'config.report=None must be a section of options'),
  (mlp, 'report.tracker', (), 'report has no option "tracker" (did you mean "trackers"?)'),
  (mlp, 'report.trackers', ('wandbb',), 'wandbb must be one of tensorboard, wandb (did you mean'),
  (mlp, 'report.trackers', 3, 'config.report.trackers=3: 3 must be a word'),
  (mlp, 'sharding', None, 'config.sharding=None must be a list of rules'),
  (mlp, 'checkpoint.keep', 0, 'config.checkpoint.keep=0 must be at least 1'),
  (mlp, 'checkpoint.best_mode', 'mean', 'config.checkpoint.best_mode=mean must be one of min, max'),
  (mlp, 'checkpoint.best', None, 'config.checkpoint.best=None must be a word'),
  (mlp, 'evaluators.test.batch_size', 0, 'config.evaluators.test.batch_size=0 must be at least 1'),
  (mlp, 'evaluators.test.every', -1, 'config.evaluators.test.every=-1 must be at least 0'),
  (gan, 'evaluators.samples.samples', 0.5, 'samples.samples=0.5 must be a whole number'),
  (mlp, 'optimizer.model.clip', -1, 'config.optimizer.model.clip=-1.0 must be at least 0'),
  (mlp, 'init_from', dict(model=dict(run=None)), 'config.init_from.model.run=None must be a word'),
]  # fmt: skip


@pytest.mark.parametrize(('module', 'path', 'value', 'message'), WRONG, ids=[c[1] for c in WRONG])
def test_what_is_wrong_is_named(module, path, value, message):
  with pytest.raises(UserError) as refused:
    check_config(changed(module, path, value))
  assert message in str(refused.value)
  assert '\n' not in str(refused.value)


def test_an_option_that_a_flag_was_to_give():
  config = changed(mlp, 'data.name', config_dict.placeholder(str))
  with pytest.raises(UserError, match=r'config\.data\.name=None must be a word'):
    check_config(config)


@pytest.mark.parametrize('config', [None, {}, ConfigDict()])
def test_what_is_no_config(config):
  with pytest.raises(UserError, match=r'configs/defaults\.py'):
    check_config(config)


@pytest.mark.parametrize(
  ('rules', 'message'),
  [
    ('kernel', 'config.sharding=kernel must be a list of rules, such as (("kernel$", (None, "fs'),
    (('kernel', (None, 'fsdp')), "config.sharding has 'kernel', which is no rule (regex, axes)"),
    ((('kernel',),), "config.sharding has ('kernel',), which is no rule"),
    ((('kernel', 8),), "config.sharding has ('kernel', 8), which is no rule"),
    (
      (('kernel', 'fsdb'),),
      '("kernel", \'fsdb\'): there is no mesh axis "fsdb" (did you mean "fsdp',
    ),
    (((3, ('fsdp',)),), "config.sharding has (3, ('fsdp',)), which is no rule"),
    ((('kernel(', ('fsdp',)),), 'config.sharding has the pattern "kernel(", which is no regular'),
    ((('kernel', ('fsdb',)),), 'there is no mesh axis "fsdb" (did you mean "fsdp"?)'),
    ((('kernel', (3,)),), 'there is no mesh axis "3"'),
    ((('kernel', ('fsdp', ('data', 'fsdp'))),), 'splits two axes over "fsdp"'),
    (None, 'config.sharding=None must be a list of rules'),
  ],
)
def test_rules_of_another_form(rules, message):
  with pytest.raises(UserError) as refused:
    check_rules(rules)
  assert message in str(refused.value)


def test_rules_of_json_are_as_good():
  rules = [['kernel$', [None, ['fsdp', 'tensor']]]]
  check_rules(rules)


def test_what_a_named_thing_takes():
  taken = options_at('modules.model', dict(name='cnn'))
  assert taken.complete and {'name', 'channels', 'dropout'} <= {*taken.options}
  assert not options_at('evaluators.x', dict(name='measure')).complete
  assert options_at('optimizer.model', dict(name='sgd')).options['momentum'].default is None
  assert options_at('modules', {}) is None
