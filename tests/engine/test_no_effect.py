"""An option that has no effect is an error that names it and the way out."""

import pytest
from ml_collections import ConfigDict

from configs import gan, gpt, mlp, tabular, vae, vqvae
from data.spec import Spec
from engine import memory
from engine.preflight import preflight
from engine.session import open_session
from errors import UserError
from tests.golden.tiny import spec, spec_of_text

# The config, its data, what is changed, and what the message holds.
CASES = [
  (gpt, '', {'optimizer.model.weight_decay': 0.0}, 'model.decay_only=kernel$|embedding$ has no'),
  (mlp, 'mnist5k', {'train.minimum_gain': 0.1}, 'config.train.minimum_gain=0.1 has no effect'),
  (mlp, 'mnist5k', {'data.folds': 5, 'data.test_name': 'mnist5k'}, 'config.data.test_name=mnist5k'),
  (
    mlp,
    'mnist5k',
    {'optimizer.model.schedule.boundaries': (3,), 'optimizer.model.schedule.factors': (0.5,)},
    'schedule.boundaries=3 has no effect with config.optimizer.model.schedule.name=cosine',
  ),
  (tabular, 'diabetes', {'objective.label_smoothing': 0.1}, 'objective.label_smoothing has no eff'),
  (tabular, 'diabetes', {'objective.class_weights': (1.0,)}, 'objective.class_weights has no effe'),
  (vae, 'mnist5k', {'objective.variance': 0.5}, 'config.objective.variance=0.5 has no effect'),
  (vqvae, 'mnist5k', {'objective.variance': 0.5}, 'config.objective.variance=0.5 has no effect'),
  (gan, 'mnist5k', {'sharding': (('kernle$', ('fsdp',)),)}, 'config.sharding has no effect'),
  (
    mlp,
    'mnist5k',
    {'modules.other': dict(name='mlp', widths=(), activation='relu')},
    'modules.other',
  ),
  (
    mlp,
    'mnist5k',
    {'init_from.model': dict(run='', module='', rules='output=skip,.*=load', checkpoint='')},
    'config.init_from.model.rules=output=skip,.*=load has no effect without a run',
  ),
  (
    mlp,
    'mnist5k',
    {'init_from.modle': dict(run='', module='', rules='.*=load', checkpoint='')},
    'config.init_from.modle has no effect: there is no config.modules.modle (did you mean "model"',
  ),
  (
    gan,
    'mnist5k',
    {'optimizer.genrator': gan.get_config().optimizer.generator.to_dict()},
    'config.optimizer.genrator has no effect: no player has an optimizer of that name (did you',
  ),
  (
    mlp,
    'mnist5k',
    {'optimizer.model.name': 'sgd', 'optimizer.model.nesterov': True},
    'config.optimizer.model.nesterov=True has no effect without config.optimizer.model.momentum',
  ),
]


def changed(module, data, changes) -> ConfigDict:
  config = module.get_config(data) if data else module.get_config()
  for place, value in changes.items():
    *parents, last = place.split('.')
    node = config
    for part in parents:
      node = node[part]
    with config.unlocked(), config.ignore_type():
      node[last] = ConfigDict(value) if isinstance(value, dict) else value
  return config


def spec_for(data: str, config: ConfigDict) -> Spec:
  return spec(data) if data else spec_of_text(config)


@pytest.mark.parametrize(('module', 'data', 'changes', 'part'), CASES)
def test_an_option_without_effect_is_refused(module, data, changes, part):
  before = changed(module, data, {})
  open_session(before, spec_for(data, before))
  config = changed(module, data, changes)
  with pytest.raises(UserError) as refused:
    open_session(config, spec_for(data, config))
  assert part in str(refused.value), refused.value


def test_mixup_without_another_image_in_the_batch(tmp_path):
  config = changed(mlp, 'mnist5k', {'data.augment.mixup': 0.2, 'data.batch_size': 1})
  with pytest.raises(UserError, match=r'augment\.mixup=0\.2 has no effect with .*batch_size=1'):
    preflight(config, str(tmp_path / 'run'))


SCHEDULES = [
  ({'end': 0.5}, r'schedule\.end=0\.5 has no effect with .*schedule\.name=constant'),
  (
    {'name': 'piecewise', 'end': 0.1, 'boundaries': (3,), 'factors': (0.5,)},
    r'schedule\.end=0\.1 has no effect with .*schedule\.name=piecewise; .* cosine or exponential',
  ),
  ({'name': 'piecewise'}, r'schedule\.name=piecewise has no effect without .*\.boundaries'),
]


@pytest.mark.parametrize(('schedule', 'part'), SCHEDULES)
def test_what_a_schedule_does_not_read_is_refused_before_a_run_begins(schedule, part, tmp_path):
  before = {'name': 'constant'}
  places = {f'optimizer.model.schedule.{key}': v for key, v in {**before, **schedule}.items()}
  config = changed(mlp, 'mnist5k', places)
  with pytest.raises(UserError, match=part):
    preflight(config, str(tmp_path / 'run'))
  # One that has begun keeps the config that it began with.
  (tmp_path / 'run' / 'checkpoints' / '10').mkdir(parents=True)
  preflight(config, str(tmp_path / 'run'))


def test_a_stride_of_documents(tmp_path):
  config = changed(gpt, 'names', {'data.text.rows': 'documents', 'data.text.stride': 4})
  with pytest.raises(
    UserError, match=r'^config\.data\.text\.stride=4 has no effect with .*rows=doc'
  ):
    open_session(config)


def test_a_missing_module_is_named_though_the_config_starts_it_from_none():
  entry = dict(run='', module='', rules='.*=load', checkpoint='')
  config = changed(vae, 'mnist5k', {'init_from.encoder': entry})
  del config.modules['encoder']
  with pytest.raises(UserError, match=r'config\.init_from\.encoder .* no config\.modules\.encoder'):
    open_session(config, spec('mnist5k'))


def test_a_batch_larger_than_the_memory_is_named_before_anything_is_traced(tmp_path):
  config = changed(mlp, 'mnist5k', {'data.batch_size': 2**31 - 1, 'train.epochs': 0.0})
  with pytest.raises(
    UserError, match=r'of memory \(.*a batch 1\.69 TB\).*config\.data\.batch_size'
  ):
    preflight(config, str(tmp_path / 'run'))


def test_a_warm_up_longer_than_the_steps_names_them():
  config = changed(gpt, '', {'train.steps': 1})
  with pytest.raises(UserError, match=r'below the 1 steps of the run \(config\.train\.steps=1\)'):
    open_session(config, spec_of_text(config))


def test_folds_of_a_split_that_is_named_twice_are_refused(tmp_path):
  places = {'data.folds': 3, 'data.name': 'mnist5k+mnist5k'}
  with pytest.raises(UserError, match=r'name=mnist5k\+mnist5k names a split twice, .*folds=3'):
    preflight(changed(mlp, 'mnist5k', places), str(tmp_path / 'run'))
  preflight(changed(mlp, 'mnist5k', {**places, 'data.split': 'train|test'}), str(tmp_path / 'run'))


def test_more_folds_than_examples_are_named():
  config = changed(mlp, 'mnist5k', {'data.folds': 10**6})
  with pytest.raises(UserError, match=r'4,000 examples .* \(config\.data\.folds\); choose'):
    open_session(config)


def test_a_warm_up_longer_than_the_epochs_names_what_makes_them_short():
  changes = {'data.batch_size': 64, 'optimizer.model.schedule.warmup': 100, 'train.epochs': 2.0}
  config = changed(mlp, 'mnist5k', changes)
  with pytest.raises(
    UserError, match=r'warmup=100 .* below the 3 steps .*epochs=2\.0 of 100 exam.*64'
  ):
    open_session(config, spec('mnist5k'))


def test_a_run_to_start_from_that_is_none_is_found_before_the_folder_is_made(tmp_path):
  entry = dict(run=str(tmp_path / 'nothing'), module='', rules='.*=load', checkpoint='')
  config = changed(mlp, 'mnist5k', {'init_from.model': entry})
  with pytest.raises(UserError, match=r'^config\.init_from\.model\.run=.*nothing: .* is no run'):
    preflight(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
  # A run that has saved something no longer needs its source.
  (tmp_path / 'run' / 'checkpoints' / '10').mkdir(parents=True)
  preflight(config, str(tmp_path / 'run'))


@pytest.mark.slow
def test_a_product_larger_than_the_memory_is_named_before_anything_is_compiled(
  tmp_path, monkeypatch
):
  config = changed(gpt, '', {'data.batch_size': 10**5, 'train.epochs': 0.0})
  monkeypatch.setattr(memory, '_host_free', lambda: 10**10)
  with pytest.raises(UserError, match=r'a step needs .*largest product.*config\.data\.batch_size'):
    preflight(config, str(tmp_path / 'run'))
