"""Turns names in a config into objects: `dict(name='mlp.Generator', widths=…)` becomes a module."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
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
    usable = _names(files, room)
    if len(usable) > _MOST_SHOWN:
      usable = sorted({each.partition('.')[0] for each in usable})
    raise UserError(
      f'{where}={name}: there is no {room.replace(".", "/")}/{file}.py{nearest(file, usable)}; '
      f'there are: {", ".join(usable)}'
    )
  symbols = _symbols(file, room)
  if not symbol:
    symbol = _namesake(file, symbols)
  if symbol not in symbols:
    known = [f'{file}.{key}' for key in sorted(symbols)] or _names(files, room)
    raise UserError(f'{where}={name} names nothing{nearest(name, known)}; try: {", ".join(known)}')
  return symbols[symbol]


_MOST_SHOWN = 20
# The packages whose things may be made by functions; the others hold classes of them.
_WITH_FUNCTIONS = ('engine', 'models')
# What a config may have built of a package.
_KINDS: Mapping[str, tuple[str, ...]] = {
  'models': ('flax.linen.Module',),
  'objectives': ('objectives.base.Objective',),
  'metrics': ('metrics.base.PredictionMetric', 'metrics.base.SampleMetric'),
  'metrics.features': ('metrics.base.FeatureExtractor',),
  'engine': ('engine.gradients.Strategy',),
  'engine.evaluators': ('engine.evaluators.base.Evaluator',),
  'engine.trackers': ('engine.tracking.Tracker',),
}


def _symbols(file: str, room: str) -> dict[str, Any]:
  """The classes and functions of one file that a config may name, by name."""
  module = importlib.import_module(f'{room}.{file}')
  kinds = [_found(kind) for kind in _KINDS[room]]
  return {
    key: value
    for key, value in vars(module).items()
    if not key.startswith('_')
    and callable(value)
    and value.__module__ == module.__name__
    and (inspect.isclass(value) or room in _WITH_FUNCTIONS)
    and any(_makes(value, kind) for kind in kinds)
  }


def _found(path: str) -> Any:
  module, _, name = path.rpartition('.')
  return getattr(importlib.import_module(module), name)


def _makes(value: Callable, kind: Any) -> bool:
  """Whether a class is of a kind, or a function says that it returns one, or nothing of it."""
  if inspect.isclass(value):
    # What is abstract is a parent.
    return inspect.isclass(kind) and issubclass(value, kind) and not inspect.isabstract(value)
  result = getattr(value, '__annotations__', {}).get('return', kind)
  if isinstance(result, str):
    result = vars(importlib.import_module(value.__module__)).get(result)
  if inspect.isclass(result) and inspect.isclass(kind):
    return issubclass(result, kind)
  return result == kind


def _namesake(file: str, symbols: Iterable[str]) -> str:
  """The symbol that the name of its file alone means; '' for none."""
  return next((key for key in symbols if key.lower() == file.replace('_', '')), '')


def _names(files: Iterable[str], room: str) -> list[str]:
  """All that a config may name in a room."""
  found = []
  for file in sorted(files):
    try:
      symbols = _symbols(file, room)
    except Exception:  # Whatever the import of a package that is optional raises.
      symbols = {file: None}
    same = _namesake(file, symbols)
    found += [file if key == same else f'{file}.{key}' for key in sorted(symbols)]
  return found


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
