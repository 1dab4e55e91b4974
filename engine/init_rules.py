"""Which parameters of a run come from other runs, and which of those stay as they are.

The section `config.init_from` names a source for each module. Its rules are 'REGEX=ACTION', with
commas between; a parameter follows the first rule whose pattern is found (`re.search`) in its path,
e.g. `model/conv_0/kernel`. Actions: `load` takes it from the source, `freeze` too and no optimizer
moves it, `skip` starts it afresh. A parameter that no rule matches is skipped.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from engine.build import call, to_plain
from engine.sharding import path_name
from errors import UserError, nearest
from options import option

# The values of an entry that names no run.
NOTHING = dict(run='', module='', rules='.*=load', checkpoint='')
ACTIONS = ('load', 'skip', 'freeze')
IsFrozen = Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class Source:
  """Where the parameters of one module come from: an entry of `config.init_from`."""

  run: str = option("The folder of the run; '' starts the module afresh.")
  module: str = option("The module's name there; '' for the same name.")
  rules: str = option(
    'REGEX=ACTION, with commas between; the first whose pattern is found in the path of a '
    'parameter says whether to load it, to freeze it too, or to skip it.'
  )
  checkpoint: str = option("'latest', 'best' or a step; '' for the one that sample.py would take.")


def sources(init_from: Any, modules: Mapping[str, Any]) -> dict[str, Source]:
  """Returns the sources that name a run, by module.

  Raises:
    UserError: an entry of another module, an unknown option, or a rule that is none.
  """
  found = {}
  for name, section in to_plain(init_from).items():
    if name not in modules:
      raise UserError(
        f'config.init_from.{name} has no effect: there is no config.modules.{name}'
        f'{nearest(name, modules)}; there are: {", ".join(modules)}'
      )
    source = call(Source, section, f'config.init_from.{name}')
    action_of(source.rules, name)
    if source.run:
      found[name] = source
      continue
    for key, default in NOTHING.items():
      if (value := getattr(source, key)) != default:
        raise UserError(
          f'config.init_from.{name}.{key}={value} has no effect without a run in '
          f'config.init_from.{name}.run; give one, or set it to "{default}"'
        )
  return found


def action_of(rules: str, module: str) -> Callable[[str], str]:
  """Returns the function from a parameter's path to its action.

  Raises:
    UserError: a rule has no '=', names no action or is no regular expression.
  """
  where = f'config.init_from.{module}.rules'
  pairs = [_parsed(rule, where) for rule in rules.split(',')]

  def action(path: str) -> str:
    return next((action for pattern, action in pairs if pattern.search(path)), 'skip')

  return action


def nothing_frozen(path: str) -> bool:
  """The `IsFrozen` of a run that freezes nothing."""
  del path
  return False


def frozen_by(found: Mapping[str, Source]) -> IsFrozen:
  """Returns whether the parameter at a path stays as it was loaded."""
  actions = {name: action_of(source.rules, name) for name, source in found.items()}

  def is_frozen(path: str) -> bool:
    module = path.split('/', 1)[0]
    return module in actions and actions[module](path) == 'freeze'

  return is_frozen


def _parsed(rule: str, where: str) -> tuple[re.Pattern, str]:
  pattern, _, action = rule.rpartition('=')
  if action not in ACTIONS or not pattern:
    raise UserError(
      f'{where} has "{rule}", which is not REGEX=ACTION with an action of '
      f'{", ".join(ACTIONS)}{nearest(action, ACTIONS)}; e.g. model/output=skip,.*=load'
    )
  try:
    return re.compile(pattern), action
  except re.error as error:
    raise UserError(
      f'{where} has "{rule}", whose pattern is no regular expression ({error})'
    ) from error


def trainable(params: Mapping[str, Any], frozen: IsFrozen) -> dict[str, Any]:
  """Returns parameters {module: tree} with None, which is no leaf, for every frozen one."""

  def kept(path, leaf):
    return None if frozen(path_name(path)) else leaf

  return jax.tree_util.tree_map_with_path(kept, dict(params))


def completed(moved: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
  """Undoes `trainable`: fills every None of `moved` from `whole`, which has all the leaves."""
  return jax.tree.map(
    lambda new, old: old if new is None else new, dict(moved), whole, is_leaf=lambda x: x is None
  )
