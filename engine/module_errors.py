"""Errors of modules while they are built and traced, told as one sentence that names the option.

A module of a config may be given sizes that its layers refuse, or be of another kind than its
objective applies. What flax and jax then raise is long and names no option. Where an error comes
from decides: from inside a module, or from a shape check on what a module returned, it is told as a
`UserError`; any other is a bug and keeps its traceback.
"""

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from errors import UserError

ROOT = Path(__file__).parents[1]
# Of code that is wrong whatever the config says.
_BUGS = (NameError, ImportError, SyntaxError)
# What jax raises for shapes and types that do not fit, and Python for too few or many outputs.
_MISFITS = (TypeError, ValueError)
# Where an error counts as one about what modules returned.
_ROOMS = ('objectives', 'losses', 'sampling')
_MOST_CHARACTERS = 200


class _Failed(NamedTuple):
  """An error that left a module."""

  error: Exception
  module: nn.Module  # the innermost one that it left


class _Calls:
  """The calls of modules within `module_errors`.

  Attributes:
    failed: the last error that left a module.
    returned: types and shapes of what each module returned last, as text, by its name.
  """

  def __init__(self, modules: Mapping[str, nn.Module]):
    self._modules = modules
    self.failed: _Failed | None = None
    self.returned: dict[str, str] = {}

  def note(self, call, args, kwargs, context) -> Any:
    """A flax interceptor: calls the method, and notes what came of it."""
    try:
      result = call(*args, **kwargs)
    except Exception as error:
      if self.failed is None or self.failed.error is not error:
        self.failed = _Failed(error, context.module)
      raise
    if not isinstance(context.module.parent, nn.Module):
      for name in _names_of(context.module, self._modules)[:1]:
        self.returned[name] = _shapes(result)
    return result


@contextmanager
def module_errors(
  modules: Mapping[str, nn.Module], sections: Mapping[str, Mapping[str, Any]]
) -> Iterator[None]:
  """Within it, an error that a module of the config is the cause of is a UserError.

  Args:
    modules: by name.
    sections: the options that each was built from, `config.modules` as plain dicts.
  """
  calls = _Calls(modules)
  try:
    with nn.intercept_methods(calls.note):
      yield
  except UserError as error:
    failed = calls.failed
    if failed is None or failed.error is not error or 'config.' in str(error):
      raise
    raise UserError(f'{_places(failed.module, modules)}: {error}') from error
  except _BUGS:
    raise
  except Exception as error:
    failed = calls.failed
    if failed is not None and failed.error is error:
      said = _of_a_module(failed, modules, sections)
      raise UserError(said + _of_others(failed, calls.returned, modules)) from error
    if calls.returned and isinstance(error, _MISFITS) and _room(error) in _ROOMS:
      raise UserError(_of_what_was_returned(error, calls.returned, modules)) from error
    if _is_of_another_kind(error, modules):
      raise UserError(_of_another_kind(error, modules)) from error
    raise


@contextmanager
def objective_errors(modules: Mapping[str, nn.Module]) -> Iterator[None]:
  """Within it, an error of an objective that is given modules of another kind is a UserError."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    if not _is_of_another_kind(error, modules):
      raise
    raise UserError(_of_another_kind(error, modules)) from error


def construction_error(error: Exception, where: str, section: Mapping[str, Any]) -> UserError:
  """Returns the sentence for what a module raised while it was made of its options."""
  return UserError(f'{_option(where, section, str(error))}: {_told(error)}; mend its options')


def _places(module: nn.Module, modules: Mapping[str, nn.Module]) -> str:
  """Where a module, which does not know its own name, may stand in the config."""
  names = _names_of(_outermost(module), modules)
  return ' or '.join(f'config.modules.{name}' for name in names or modules)


def missing_module(name: str, modules: Mapping[str, nn.Module]) -> UserError:
  """Returns the sentence for a module that the objective needs and the config lacks."""
  return UserError(
    f'config.modules.{name} is missing: config.objective needs a module "{name}", and '
    f'config.modules has {", ".join(modules) or "none"}; add it, or choose another objective'
  )


def _of_a_module(
  failed: _Failed, modules: Mapping[str, nn.Module], sections: Mapping[str, Mapping[str, Any]]
) -> str:
  names = _names_of(_outermost(failed.module), modules)
  inside = '/'.join(failed.module.path)
  part = f' in its part {inside}' if inside else ''
  told = _told(failed.error)
  if len(names) != 1:
    places = _places(failed.module, modules)
    return f'{places} cannot be used{part}: {told}; mend its options, or name another module'
  where, section = f'config.modules.{names[0]}', sections[names[0]]
  return (
    f'{_option(where, section, str(failed.error))} cannot be used{part}: {told}; mend its options, '
    'or name a module that fits the objective and the data'
  )


def _of_others(
  failed: _Failed, returned: Mapping[str, str], modules: Mapping[str, nn.Module]
) -> str:
  """The shapes that the other modules returned, to which the failed one may have been applied."""
  own = _names_of(_outermost(failed.module), modules)
  gave = _returns({name: shapes for name, shapes in returned.items() if name not in own}, modules)
  return f' ({gave})' if gave else ''


def _of_what_was_returned(
  error: Exception, returned: Mapping[str, str], modules: Mapping[str, nn.Module]
) -> str:
  return (
    f'the modules do not fit config.objective: {_told(error)}; {_returns(returned, modules)}: name '
    'modules of the kind that the objective applies'
  )


def _returns(returned: Mapping[str, str], modules: Mapping[str, nn.Module]) -> str:
  return ', '.join(
    f'config.modules.{name} ({type(modules[name]).__name__}) returns {shapes}'
    for name, shapes in returned.items()
  )


def _is_of_another_kind(error: Exception, modules: Mapping[str, nn.Module]) -> bool:
  """Whether an objective misses a module, or in one of them a field that its own kind has."""
  if _room(error) != 'objectives':
    return False
  if isinstance(error, KeyError):
    return isinstance(error.args[0], str) and error.args[0] not in modules
  kinds = [type(module).__name__ for module in modules.values()]
  about_a_module = any(re.search(rf'\b{kind}\b', str(error)) for kind in kinds)
  return isinstance(error, (AttributeError, TypeError)) and about_a_module


def _of_another_kind(error: Exception, modules: Mapping[str, nn.Module]) -> str:
  if isinstance(error, KeyError):
    return str(missing_module(error.args[0], modules))
  named = ', '.join(f'config.modules.{n} is {type(m).__name__}' for n, m in modules.items())
  return (
    f'the modules do not fit config.objective: {_told(error)}; {named}: name modules of the kind '
    'that the objective applies'
  )


def _outermost(module: nn.Module) -> nn.Module:
  while isinstance(module.parent, nn.Module):
    module = module.parent
  return module


def _names_of(found: nn.Module, modules: Mapping[str, nn.Module]) -> list[str]:
  """The names of the modules that `found`, which is bound to variables, may be a copy of."""
  alike = [name for name, module in modules.items() if type(module) is type(found)]
  same = [name for name in alike if repr(modules[name].clone()) == repr(found.clone(parent=None))]
  return same if len(same) == 1 else alike


def _option(where: str, section: Mapping[str, Any], text: str) -> str:
  """The place of the option whose value an error's text holds; else the module with its options.

  Of values that may stand there by chance, such as 1 or 32, none is taken for the cause.
  """
  for key, value in section.items():
    for one in value if isinstance(value, tuple) else (value,):
      telling = isinstance(one, str) or (isinstance(one, (int, float)) and not 0 < one < 10**6)
      if key != 'name' and telling and one != '' and not isinstance(one, bool):
        if re.search(rf'(?<![\w.]){re.escape(str(one))}(?![\w.])', text):
          return f'{where}.{key}={_written(value)}'
  return f'{where} ({", ".join(f"{k}={_written(v)}" for k, v in section.items())})'


def _written(value: Any) -> str:
  """A value as a flag gives it."""
  return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _told(error: Exception) -> str:
  """The first line of an error, and the line of the project that it comes from."""
  lines = str(error).strip().splitlines() or ['']
  text = lines[0] if len(lines[0]) <= _MOST_CHARACTERS else f'{lines[0][:_MOST_CHARACTERS]}…'
  place = _place(error)
  at = f' ({place.filename.relative_to(ROOT)}, line {place.line})' if place else ''
  return f'{type(error).__name__}: {text.rstrip(".")}{at}'


class _Place(NamedTuple):
  """A line of the project."""

  filename: Path
  line: int


def _place(error: Exception) -> _Place | None:
  """The innermost line of the project that an error passed, but for this file's."""
  found = None
  for frame in traceback.extract_tb(error.__traceback__):
    path = Path(frame.filename)
    if path.is_relative_to(ROOT) and path != Path(__file__) and 'site-packages' not in path.parts:
      found = _Place(path, frame.lineno or 0)
  return found


def _room(error: Exception) -> str:
  place = _place(error)
  return place.filename.relative_to(ROOT).parts[0] if place else ''


def _shapes(result: Any) -> str:
  leaves = [leaf for leaf in jax.tree.leaves(result) if hasattr(leaf, 'shape')]
  return ' and '.join(f'{leaf.dtype}{list(leaf.shape)}' for leaf in leaves[:3]) or 'no array'
