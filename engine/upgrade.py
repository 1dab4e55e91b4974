"""Configs of runs made before an option existed: it is added, set to what was done then."""

from collections.abc import Mapping, Sequence
from typing import Any

# Every option that came after the first run was written, and the value that changes nothing; `*`
# stands for every section there, `SECTION:NAME` for the section if its `name` is that.
ADDED = {
  'data.test_name': '',
  'data.classes': [],
  'data.columns': [],
  'data.folds': 0,
  'data.fold': 0,
  'data.text': {},
  'data.augment.cutout': 0,
  'data.augment.mixup': 0.0,
  'train.epochs': 0.0,
  'train.patience': 0,
  'train.minimum_gain': 0.0,
  'evaluate.timed_calls': 0,
  'init_from': '',
  'init_rules': '.*=load',
  'optimizer.*.decay_only': '',
  'objective:classify.views': {'mirror': False, 'shift': 0},
}


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config of a run, as plain dicts, with the options that it lacks."""
  whole = dict(config)
  for path, value in ADDED.items():
    _add(whole, path.split('.'), value)
  return whole


def _add(node: dict[str, Any], path: Sequence[str], value: Any) -> None:
  first, *rest = path
  if not rest:
    node.setdefault(first, value)
    return
  for name in _sections(node, first):
    node[name] = dict(node[name])
    _add(node[name], rest, value)


def _sections(node: Mapping[str, Any], which: str) -> list[str]:
  if which == '*':
    return list(node)
  section, _, name = which.partition(':')
  return [section] if name in ('', node[section].get('name')) else []
