"""Entries of a module of losses by the name that a config gives."""

from types import ModuleType
from typing import Any

from errors import choose


def entries(module: ModuleType) -> dict[str, Any]:
  """Returns the public functions and instances that `module` defines, by name."""
  return {
    key: value
    for key, value in vars(module).items()
    if not key.startswith('_') and key[0].islower() and _is_defined_in(value, module)
  }


def pick(module: ModuleType, name: str, where: str) -> Any:
  """Returns the entry `name` of a module.

  Args:
    module: e.g. `losses.adversarial`.
    name: of the entry.
    where: the option that holds the name, e.g. 'config.objective.loss'.

  Raises:
    UserError: there is none; lists what there is.
  """
  return choose(entries(module), name, where)


def _is_defined_in(value: Any, module: ModuleType) -> bool:
  """Whether `value` is a function or an instance of a class that `module` itself defines."""
  owner = value if hasattr(value, '__qualname__') else type(value)
  return getattr(owner, '__module__', None) == module.__name__
