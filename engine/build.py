"""Turns names in a config into objects: `dict(name='mlp.Generator', widths=…)` becomes a module."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from errors import UserError, nearest
from options import REQUIRED, declared_options


def build(spec: Mapping[str, Any], room: str, where: str, provided: Mapping[str, Any] = {}) -> Any:
  """Builds the object that `spec` names.

  Args:
    spec: `name` and the keyword arguments of what it names.
    room: the package that `name` is looked up in, e.g. `metrics.features`.
    where: the spec's place in the config, for messages.
    provided: values the engine knows (`dtype`, `image_shape`…): a dataclass, such as a linen
      module, that declares a field of that name gets the value, unless the spec gives another.

  Raises:
    UserError: no such name, an unknown or a missing keyword, or the callable refused a value.
  """
  target = resolve(name_of(spec, where), room, f'{where}.name')
  arguments = {key: value for key, value in spec.items() if key != 'name'}
  fields = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
  declared = {field.name for field in fields if field.init}
  filled = {name: value for name, value in provided.items() if name in declared}
  if 'image_shape' in filled and {**filled, **arguments}['image_shape'] is None:
    raise UserError(
      f'{where}.name={spec["name"]} makes images, and the data set has none; choose a data set of '
      'images with --config.data.name, or another config'
    )
  return call(target, {**filled, **arguments}, where)


def require_kind(found: Any, kind: type, name: str, where: str, what: str) -> None:
  """Raises UserError unless an object, or a class, that a config named is of a kind.

  Args:
    found: what was built, or is to be.
    kind: a class.
    name: that it was named by.
    where: the place of the section in the config.
    what: the kind in words, as in 'is no module'.
  """
  is_kind = issubclass(found, kind) if inspect.isclass(found) else isinstance(found, kind)
  if not is_kind:
    raise UserError(f'{where}.name={name} is no {what}; name another')


def name_of(spec: Any, where: str) -> str:
  """Returns what `spec` names.

  Raises:
    UserError: it is no section of options, or its `name` is missing or no word.
  """
  if not isinstance(spec, Mapping):
    raise UserError(f"{where}={spec} must be a section of options, such as dict(name='…')")
  if 'name' not in spec:
    raise UserError(f'{where}.name is missing; give the name of what is to be built')
  if not isinstance(spec['name'], str) or not spec['name']:
    raise UserError(f'{where}.name={spec["name"]} must be a word')
  return spec['name']


def call(target: Callable, arguments: Mapping[str, Any], where: str, *positional: Any) -> Any:
  """Calls `target(*positional, **arguments)`, with the config's place in every complaint.

  Values of fields that `options.option` declares are checked first.

  Raises:
    UserError: `arguments` are no section, an unknown or a missing keyword, a value of another type
      or out of range, or the callable refused one.
  """
  if not isinstance(arguments, Mapping):
    raise UserError(f'{where}={arguments} must be a section of options')
  taken = list(parameters(target))[len(positional) :]
  accepts_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
  for key in arguments:
    if key not in taken and not accepts_any:
      raise UserError(
        f'{where} has no option "{key}"{nearest(key, taken)}; it takes: {", ".join(sorted(taken))}'
      )
  declared = declared_options(target)
  for key, option in declared.items():
    if key in taken and key not in arguments and option.default is REQUIRED:
      raise UserError(f'{where}.{key} is missing; it must be {option.kind}: {option.doc}')
  try:
    inspect.signature(target).bind(*positional, **arguments)
  except TypeError as error:
    raise UserError(f'{where}: {error}; it takes: {", ".join(sorted(taken))}') from None
  arguments = {
    key: declared[key].check(value, f'{where}.{key}') if key in declared else value
    for key, value in arguments.items()
  }
  try:
    return target(*positional, **arguments)
  except ValueError as error:
    raise UserError(f'{where}: {error}') from error


def parameters(target: Callable) -> dict[str, inspect.Parameter]:
  """The keyword arguments that `target` takes, without those that linen adds to every module."""
  found = inspect.signature(target).parameters
  added = ('parent', 'name') if 'parent' in found else ()
  return {
    name: parameter
    for name, parameter in found.items()
    if name not in added and parameter.kind is not parameter.VAR_KEYWORD
  }


def keyword_options(target: Callable) -> set[str]:
  """Returns the names that a config may give to `target`: of all parameters, or keywords alone."""
  keyword_only = {
    name
    for name, parameter in inspect.signature(target).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
  }
  return keyword_only | set(parameters(target))


def resolve(name: str, room: str, where: str) -> Callable:
  """Returns `FILE.Symbol` of a room; `FILE` alone means the class named like the file.

  Raises:
    UserError: there is no such file or symbol; lists those there are.
  """
  file, _, symbol = name.partition('.')
  found = pkgutil.iter_modules(importlib.import_module(room).__path__)
  files = [module.name for module in found if not module.ispkg]
  if file not in files:
    raise UserError(
      f'{where}={name}: there is no {room.replace(".", "/")}/{file}.py{nearest(file, files)}; '
      f'there are: {", ".join(sorted(files))}'
    )
  module = importlib.import_module(f'{room}.{file}')
  symbols = {
    key: value
    for key, value in vars(module).items()
    if not key.startswith('_') and _can_be_named(value, module.__name__, room)
  }
  if not symbol:
    same = [key for key in symbols if key.lower() == file.replace('_', '')]
    symbol = same[0] if same else ''
  if symbol not in symbols:
    known = ', '.join(f'{file}.{key}' for key in sorted(symbols))
    raise UserError(f'{where}={name} names nothing{nearest(name, known.split(", "))}; try: {known}')
  return symbols[symbol]


# The packages whose things may be made by functions; the others hold classes of them.
_WITH_FUNCTIONS = ('engine', 'models')


def _can_be_named(value: Any, module: str, room: str) -> bool:
  """Whether a value in a module of a room is something that a config can have built."""
  if not callable(value) or value.__module__ != module:
    return False
  if not inspect.isclass(value):
    return room in _WITH_FUNCTIONS
  # What is abstract is a parent, and a tuple a result.
  return not inspect.isabstract(value) and not issubclass(value, tuple)


def to_plain(value: Any) -> Any:
  """A config's value as plain dicts and tuples, fit for a pure function."""
  if isinstance(value, (ConfigDict, Mapping)):
    return {key: to_plain(entry) for key, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(to_plain(entry) for entry in value)
  # A scalar of NumPy or jax is the number that it holds.
  if hasattr(value, 'item') and getattr(value, 'shape', None) == ():
    return value.item()
  return value
