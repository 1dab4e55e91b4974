"""A run of an older version, whose config lacks later options, is opened and goes on."""

import json

from engine import loop, run
from engine.restore import restore_run
from engine.upgrade import ADDED, upgraded
from tests.test_transfer import config_of


def without(config, path):
  *parents, name = path.split('.')
  nodes = [config]
  for part in parents:
    nodes = [
      node[key] for node in nodes for key in (node if part == '*' else [part.partition(':')[0]])
    ]
  for node in nodes:
    del node[name]


def test_options_that_came_later_are_added(tmp_path):
  workdir = tmp_path / 'run'
  loop.train(config_of(train__steps=2), str(workdir))
  whole = run.read_config(str(workdir))
  old = json.loads((workdir / 'config.json').read_text())
  for path in ADDED:
    without(old, path)
  (workdir / 'config.json').write_text(json.dumps(old))
  read = run.read_config(str(workdir))
  assert {**read, 'evaluate': 0} == {**whole, 'evaluate': 0}
  assert read['evaluate']['timed_calls'] == ADDED['evaluate.timed_calls']
  assert restore_run(str(workdir), '').step == 2
  loop.train(config_of(train__steps=3), str(workdir))
  assert restore_run(str(workdir), '').step == 3


def test_an_option_of_one_objective_is_not_added_to_others():
  old = {'objective': {'name': 'vae'}, 'data': {'augment': {}}, 'train': {}, 'evaluate': {}}
  assert upgraded({**old, 'optimizer': {}})['objective'] == {'name': 'vae'}
  old['objective'] = {'name': 'classify'}
  read = upgraded({**old, 'optimizer': {}})
  assert read['objective']['views'] == {'mirror': False, 'shift': 0}
