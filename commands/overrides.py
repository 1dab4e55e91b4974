"""Replacing one thing by another with a flag: the options of the old one leave with it."""

import inspect
import re
import sys
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from engine import optimizers
from engine.build import parameters, resolve

# The room that the things at a place of the config come from.
_ROOMS = {
  r'modules\.[^.]+': 'models',
  r'objective': 'objectives',
  r'evaluators\.[^.]+': 'engine.evaluators',
  r'evaluators\.[^.]+\.features': 'metrics.features',
  r'evaluators\.[^.]+\.metrics\.[^.]+': 'metrics',
}


def drop_stale(config: ConfigDict, original: ConfigDict, overridden: Sequence[str]) -> None:
  """Deletes options that only the replaced thing takes, and says which.

  `--config.optimizer.generator.name=sgd` must not fail on the `b1` that the config gave to Adam.

  Args:
    config: after the flags; changed in place.
    original: before them.
    overridden: the keys that flags set.
  """
  for key in overridden:
    if not key.endswith('.name'):
      continue
    parent = key.removesuffix('.name')
    section, before = _at(config, parent), _at(original, parent)
    takes = _takes(parent, section.name)
    if section.name == before.name or takes is None:
      continue
    stale = [k for k in section if k not in takes and f'{parent}.{k}' not in overridden]
    with config.unlocked():
      for option in stale:
        del section[option]
        print(f'dropped  config.{parent}.{option}: it belongs to {before.name}', file=sys.stderr)


def _at(config: ConfigDict, path: str) -> ConfigDict:
  for part in path.split('.'):
    config = config[part]
  return config


def _takes(parent: str, name: str) -> set[str] | None:
  """Options that the thing `name` takes at this place of the config; None if nothing is built."""
  section, *rest = parent.split('.')
  if section == 'optimizer' and len(rest) == 1:
    return {
      *_options(optimizers.find(name, f'config.{parent}')),
      *_options(optimizers.make_optimizer),
    }
  for pattern, room in _ROOMS.items():
    if re.fullmatch(pattern, parent):
      return {'name', *_options(resolve(name, room, f'config.{parent}.name'))}
  return None


def _options(target: Callable) -> set[str]:
  keyword_only = {
    name
    for name, parameter in inspect.signature(target).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
  }
  return keyword_only | set(parameters(target))
