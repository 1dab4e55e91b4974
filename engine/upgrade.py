"""Configs of runs made before an option existed: it is added, set to what was done then."""

from collections.abc import Mapping
from typing import Any

# Every option that came after the first run was written, and the value that changes nothing.
ADDED = {
  'data.test_name': '',
  'data.classes': [],
  'data.columns': [],
  'data.folds': 0,
  'data.fold': 0,
  'data.augment.cutout': 0,
  'data.augment.mixup': 0.0,
  'train.epochs': 0.0,
  'train.patience': 0,
  'train.minimum_gain': 0.0,
  'evaluate.timed_calls': 0,
  'init_from': '',
  'init_rules': '.*=load',
}


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config of a run, as plain dicts, with the options that it lacks."""
  whole = dict(config)
  for path, value in ADDED.items():
    *parents, name = path.split('.')
    node = whole
    for part in parents:
      node[part] = dict(node[part])
      node = node[part]
    node.setdefault(name, value)
  return whole
