"""Starting from another run: what is taken, what is held, what is said."""

import shutil

import jax
import numpy as np
import pytest

from commands import cli, config_flags
from engine import loop
from engine.init_rules import action_of
from engine.restore import restore_run
from engine.session import open_session
from errors import UserError
from tests import runs
from tests.conftest import ROOT


def config_of(**changes):
  config = cli.load(f'{ROOT}/configs/mlp.py')
  config.modules.model.widths = (16, 8)
  # Else a run cut short would have had another rate.
  config.optimizer.model.schedule.name = 'constant'
  config.data.batch_size = 16
  config.data.split, config.data.test_split = 'train[:64]', 'test[:32]'
  config.train.epochs, config.train.steps = 0.0, 6
  config.evaluators.test.update(metrics={}, every=1000)
  config_flags.complete_init_from(config)
  for path, value in changes.items():
    node = config
    *parents, name = path.split('__')
    for part in parents:
      node = node[part]
    node[name] = value
  return config


def taking(run, rules='.*=load'):
  """Changes of a config that take the module from a run."""
  return {'init_from__model__run': run, 'init_from__model__rules': rules}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp('source') / 'run')
  loop.train(config_of(), folder)
  return folder


def params(held):
  flat = jax.tree_util.tree_leaves_with_path(dict(held.params))
  return {'/'.join(k.key for k in path): np.asarray(leaf) for path, leaf in flat}


def test_rules_decide_what_is_loaded_frozen_and_fresh(source, tmp_path, capsys):
  rules = 'hidden_0=freeze,output=skip,.*=load'
  config = config_of(**taking(source, rules), train__seed=5, train__steps=4)
  loop.train(config, str(tmp_path / 'run'))
  said = capsys.readouterr().out
  assert f'transfer from {source}, step 6' in said
  assert 'loaded 2: model/hidden_1/bias, model/hidden_1/kernel' in said
  assert 'frozen 2: model/hidden_0/bias, model/hidden_0/kernel' in said
  assert 'skipped 2: model/output/bias, model/output/kernel' in said
  assert 'missing' not in said and 'unused' not in said

  before = params(restore_run(source, 'latest').weights)
  after = params(restore_run(str(tmp_path / 'run'), 'latest').weights)
  for name in before:
    held = 'hidden_0' in name
    assert (before[name] == after[name]).all() == held, name
  shapes = {leaf.shape for name, leaf in runs.leaves(tmp_path / 'run').items() if 'opt_s' in name}
  assert (784, 16) not in shapes and (16, 8) in shapes


def test_a_fresh_start_differs_only_where_it_was_loaded(source):
  from engine.transfer import transfer

  session = open_session(config_of(**taking(source, 'output=skip,.*=load'), train__seed=5))
  fresh = session.init()
  state, (report,) = transfer(fresh, session)
  before, start, now = params(restore_run(source, '').weights), params(fresh), params(state)
  for name in now:
    wanted = start if 'output' in name else before
    np.testing.assert_array_equal(now[name], wanted[name])
  assert len(report.loaded) == 4 and not report.frozen


def test_averages_are_what_is_taken(tmp_path):
  from engine.transfer import transfer

  ema = dict(slow=dict(module='model', decay=0.9, half_life=0.0))
  folder = str(tmp_path / 'averaged')
  loop.train(config_of(ema=ema), folder)
  held = restore_run(folder, '').weights
  average = held.ema['slow']['params']['output']['kernel']
  assert (average != held.params['model']['output']['kernel']).any()
  session = open_session(config_of(ema=ema, **taking(folder)))
  state, _ = transfer(session.init(), session)
  for tree in (state.params['model'], state.ema['slow']['params']):
    np.testing.assert_array_equal(tree['output']['kernel'], average)


def test_a_resumed_run_needs_the_source_no_more(source, tmp_path):
  moved = tmp_path / 'moved'
  shutil.copytree(source, moved)
  rules = 'hidden_0=freeze,.*=load'
  changes = taking(str(moved), rules)
  loop.train(config_of(**changes, train__steps=3), str(tmp_path / 'cut'))
  shutil.rmtree(moved)
  loop.train(config_of(**changes), str(tmp_path / 'cut'))
  loop.train(config_of(**taking(source, rules)), str(tmp_path / 'whole'))
  cut, whole = (params(restore_run(str(tmp_path / n), 'latest').weights) for n in ('cut', 'whole'))
  for name in whole:
    assert cut[name].tobytes() == whole[name].tobytes(), name


def test_missing_and_unused_are_named(source, tmp_path, capsys):
  config = config_of(
    **taking(source, 'output=skip,.*=load'), train__steps=1, modules__model__widths=(16, 8, 4)
  )
  loop.train(config, str(tmp_path / 'deeper'))
  said = capsys.readouterr().out
  assert 'missing 2: model/hidden_2/bias, model/hidden_2/kernel' in said
  config = config_of(
    **taking(source, 'output=skip,.*=load'), train__steps=1, modules__model__widths=(16,)
  )
  loop.train(config, str(tmp_path / 'shallower'))
  assert 'unused 2: model/hidden_1/bias, model/hidden_1/kernel' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      dict(modules__model__widths=(16, 9)),
      r'hidden_1/bias is \(8,\) in .* and \(9,\) here; .*=model/hidden_1=skip,',
    ),
    (dict(init_from__model__rules='hidden_0=hold'), r'is not REGEX=ACTION'),
    (dict(init_from__model__rules='hidden_(=load'), 'is no regular expression'),
    (dict(init_from__model__rules='.*=skip'), 'takes nothing from'),
    (dict(init_from__model__rules='.*=freeze'), 'freezes all that optimizer "model" could train'),
    (
      dict(init_from__model__rules='.*=freeze', modules__model__widths=(16, 8, 4)),
      'freezes all',
    ),
    (
      dict(init_from__model__rules='hidden_2=freeze,.*=skip', modules__model__widths=(16, 8, 4)),
      'freezes model/hidden_2/bias, which .* does not have',
    ),
    (dict(init_from__model__run='/nowhere'), 'is no run'),
    (dict(init_from__model__module='decoder'), 'has no module "decoder", only model'),
  ],
)
def test_mistakes_are_named(source, tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    loop.train(config_of(**{**taking(source), **changes}), str(tmp_path / 'run'))


def test_the_first_rule_that_is_found_wins():
  action = action_of('conv=skip,conv_1=load,b$=freeze', 'm')
  assert [action(p) for p in ('m/conv_1/k', 'm/x/b', 'm/x/k')] == ['skip', 'freeze', 'skip']
