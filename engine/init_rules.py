"""Which parameters of a run come from another run, and which of those stay as they are.

Rules are 'REGEX=ACTION', with commas between; a parameter follows the first rule whose pattern is
found (`re.search`) in its path, e.g. `model/conv_0/kernel`. Actions: `load` takes it from
`config.init_from`, `freeze` too and no optimizer moves it, `skip` starts it afresh. What no rule
matches is skipped.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from engine.sharding import path_name
from errors import UserError, nearest

ACTIONS = ('load', 'skip', 'freeze')
IsFrozen = Callable[[str], bool]


def action_of(rules: str) -> Callable[[str], str]:
  """Returns the function from a parameter's path to its action.

  Raises:
    UserError: a rule has no '=', names no action or is no regular expression.
  """
  pairs = [_parsed(rule) for rule in rules.split(',')]

  def action(path: str) -> str:
    return next((action for pattern, action in pairs if pattern.search(path)), 'skip')

  return action


def nothing(path: str) -> bool:
  """The `IsFrozen` of a run that freezes nothing."""
  del path
  return False


def is_frozen(init_from: str, rules: str) -> IsFrozen:
  """Returns whether the parameter at a path stays as it was loaded."""
  action = action_of(rules)
  return (lambda path: action(path) == 'freeze') if init_from else nothing


def _parsed(rule: str) -> tuple[re.Pattern, str]:
  pattern, _, action = rule.rpartition('=')
  if action not in ACTIONS or not pattern:
    raise UserError(
      f'config.init_rules has "{rule}", which is not REGEX=ACTION with an action of '
      f'{", ".join(ACTIONS)}{nearest(action, ACTIONS)}; e.g. model/output=skip,.*=load'
    )
  try:
    return re.compile(pattern), action
  except re.error as error:
    raise UserError(
      f'config.init_rules has "{rule}", whose pattern is no regular expression ({error})'
    ) from error


def trainable(params: Mapping[str, Any], frozen: IsFrozen) -> dict[str, Any]:
  """The parameters {module: tree} with None, which is no leaf, in place of every frozen one."""

  def kept(path, leaf):
    return None if frozen(path_name(path)) else leaf

  return jax.tree_util.tree_map_with_path(kept, dict(params))


def completed(moved: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
  """`trainable` undone: every None of `moved` filled from `whole`, which has all the leaves."""
  return jax.tree.map(
    lambda new, old: old if new is None else new, dict(moved), whole, is_leaf=lambda x: x is None
  )
