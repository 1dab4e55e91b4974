"""Entries of a module of losses by the name that a config gives."""

from types import ModuleType
from typing import Any

from errors import UserError, choose


def entries(module: ModuleType) -> dict[str, Any]:
  """Returns the public functions and instances that `module` defines, by name."""
  return {
    key: value
    for key, value in vars(module).items()
    if not key.startswith('_') and key[0].islower() and _is_defined_in(value, module)
  }


def check_variance(reconstruction: str, variance: float) -> None:
  """Raises UserError for a variance that a likelihood of images does not have."""
  if variance and reconstruction != 'gaussian':
    raise UserError(
      f'config.objective.variance={variance} has no effect with config.objective.reconstruction='
      f'{reconstruction}; set it to 0, or use gaussian'
    )


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
