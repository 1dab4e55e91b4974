"""Declarations of options: one place for an option's type, default, range and meaning.

Samplers, evaluators, metrics and feature extractors declare what they take as a mapping from names
to `Option`s. Sections of a config, modules and objectives are dataclasses, whose fields `option`
declares. Flags, `--help`, the checks before the first step and the messages all read it.
"""

import collections.abc
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from errors import UserError, nearest


class Option(NamedTuple):
  """The declaration of one option.

  Attributes:
    type: `int`, `float`, `bool` or `str`; a whole number is taken where `float` is declared.
      `Mapping` for a section of further options, `object` for anything.
    default: the value where none is given; may be None, which means what `doc` says. `REQUIRED`
      where one must be given.
    doc: what the option does, one or two sentences for `--help`.
    low: the smallest value allowed, None for no bound.
    high: the largest value allowed, None for no bound.
    above: a bound that the value must exceed, None for none.
    below: a bound that the value must stay under, None for none.
    choices: the only words allowed; empty for any.
    each: '' for a single value, 'list' for a list of values, 'mapping' for a mapping from names to
      values. Type and bounds are those of every value.
    also: values allowed beside the range, e.g. -1 for "all that is left".
    longest: most values of a list; None for no bound.

  Numbers are those that a device computes with: where `high` and `below` set no bound, whole
  numbers are below 2³¹; floats must be finite as float32.
  """

  type: type
  default: Any
  doc: str
  low: float | None = None
  high: float | None = None
  above: float | None = None
  below: float | None = None
  choices: tuple[str, ...] = ()
  each: str = ''
  also: tuple[float, ...] = ()
  longest: int | None = None

  @property
  def kind(self) -> str:
    """The type in words, e.g. 'a list of whole numbers'."""
    if not self.each:
      return _KINDS[self.type][0]
    several = _KINDS[self.type][1]
    return f'a list of {several}' if self.each == 'list' else f'a mapping from names to {several}'

  @property
  def allowed(self) -> str:
    """The range in words, e.g. 'above 0 and at most 1'; '' where every value will do."""
    if self.choices:
      return f'one of {", ".join(self.choices)}'
    bounds = (
      ('at least', self.low),
      ('above', self.above),
      ('at most', self.high),
      ('below', self.below),
    )
    span = ' and '.join(f'{word} {bound}' for word, bound in bounds if bound is not None)
    return ', or '.join([span, *map(str, self.also)])

  def check(self, value: Any, where: str) -> Any:
    """Returns the value as this option's type.

    Args:
      value: what was given; None where that is the default too, and a single value for a list of
        it.
      where: the option as a user writes it, e.g. '--temperature'.

    Raises:
      UserError: another type, not finite, or out of range.
    """
    if value is None and self.default is None:
      return None
    if self.each == 'list':
      values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
      shown = ','.join(map(str, values))
      if self.longest is not None and len(values) > self.longest:
        raise UserError(
          f'{where}={shown} has {len(values)} values and must have at most {self.longest}'
        )
      if value is None and self.type is not object:
        raise UserError(f'{where}=None must be {self.kind}')
      return tuple(self._checked(one, f'{where}={shown}: {one}') for one in values)
    if self.each == 'mapping':
      if not isinstance(value, Mapping):
        raise UserError(f'{where}={value} must be {self.kind}')
      return {name: self._checked(one, f'{where}.{name}={one}') for name, one in value.items()}
    return self._checked(value, f'{where}={value}')

  def _checked(self, value: Any, shown: str) -> Any:
    """Returns one value as the type; `shown` is how messages begin."""
    value = self._typed(value, shown)
    if isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT:
      beyond = ' that float32 holds' if math.isfinite(value) else ''
      raise UserError(f'{shown} must be a finite number{beyond}')
    unbounded = self.type is int and self.high is None and self.below is None
    if unbounded and value > _LARGEST_INT:
      raise UserError(f'{shown} must be at most {_LARGEST_INT}')
    if not self._allows(value):
      close = nearest(value, self.choices) if self.choices else ''
      raise UserError(f'{shown} must be {self.allowed}{close}')
    return value

  def _typed(self, value: Any, shown: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if self.type is float and is_number:
      # A whole number may be too large for a float.
      return float(value) if abs(value) <= sys.float_info.max else math.inf
    if isinstance(value, self.type) and (self.type is not int or is_number):
      return value
    raise UserError(f'{shown} must be {_KINDS[self.type][0]}')

  def _allows(self, value: Any) -> bool:
    if self.choices:
      return value in self.choices
    return value in self.also or (
      (self.low is None or value >= self.low)
      and (self.high is None or value <= self.high)
      and (self.above is None or value > self.above)
      and (self.below is None or value < self.below)
    )


# Of int32 and float32.
_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, (2 - 2**-23) * 2.0**127

# One value and several of them, in words.
_KINDS: Mapping[type, tuple[str, str]] = {
  int: ('a whole number', 'whole numbers'),
  float: ('a number', 'numbers'),
  bool: ('True or False', 'True or False'),
  str: ('a word', 'words'),
  Mapping: ('a section of options', 'sections of options'),
  object: ('anything', 'anything'),
}


class _Required:
  """The type of `REQUIRED`."""

  def __repr__(self) -> str:
    return 'REQUIRED'


REQUIRED = _Required()


def complete(
  declared: Mapping[str, Option], given: Mapping[str, Any], owner: str, prefix: str = ''
) -> dict[str, Any]:
  """Returns a checked value for every declared option: the one given, or the default.

  Args:
    declared: options by name.
    given: values by name.
    owner: whose options they are, for messages, e.g. 'the sampler of runs/gan'.
    prefix: what stands before a name as a user writes it, e.g. '--'.

  Raises:
    UserError: a name that is not declared, a value of another type or out of range, or none where
      one must be given.
  """
  for name in given:
    if name not in declared:
      raise UserError(
        f'{prefix}{name} is no option of {owner}{nearest(name, declared)}; it has: '
        f'{", ".join(prefix + other for other in declared) or "none"}'
      )
  for name, option in declared.items():
    if option.default is REQUIRED and name not in given:
      raise UserError(f'{prefix}{name} is missing; {owner} needs it: {option.doc}')
  return {
    name: option.check(given.get(name, option.default), f'{prefix}{name}')
    for name, option in declared.items()
  }


def option(
  doc: str,
  low: float | None = None,
  high: float | None = None,
  above: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] = (),
  default: Any = dataclasses.MISSING,
  also: tuple[float, ...] = (),
  longest: int | None = None,
) -> Any:
  """Declares a field of a dataclass whose value a config gives; see `Option`.

  The field's annotation is the option's type: `int`, `float`, `bool`, `str`, a mapping, or
  `Sequence` or `Mapping` of one of them; any other is declared for its `doc` alone. Where a config
  always holds the value, the field has no default.
  """
  declared = dict(
    doc=doc,
    low=low,
    high=high,
    above=above,
    below=below,
    choices=tuple(choices),
    also=tuple(also),
    longest=longest,
  )
  return dataclasses.field(default=default, metadata={_DECLARED: declared})


_DECLARED = 'option'
_SEQUENCES = (collections.abc.Sequence, tuple, list)
_MAPPINGS = (collections.abc.Mapping, dict)


def declared_options(target: Callable) -> dict[str, Option]:
  """Returns the options that the fields of a dataclass declare, by name; none of anything else."""
  if not dataclasses.is_dataclass(target):
    return {}
  hints = typing.get_type_hints(target)
  found = {}
  for field in dataclasses.fields(target):
    if _DECLARED in field.metadata:
      type_, each = _type_of(hints[field.name])
      default = REQUIRED if field.default is dataclasses.MISSING else field.default
      found[field.name] = Option(type_, default, each=each, **field.metadata[_DECLARED])
  return found


def _type_of(hint: Any) -> tuple[Any, str]:
  """The type of a value, and what an option of it is: `Sequence[int]` → (int, 'list')."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin in _SEQUENCES:
    return _plain(inner[0]), 'list'
  if origin in _MAPPINGS:
    # Without a type of its values it is a section, such as `dict(name=…)`.
    return (Mapping, '') if inner[1] is Any else (_plain(inner[1]), 'mapping')
  return _plain(hint), ''


def _plain(hint: Any) -> Any:
  """One of the types of `Option` for a type; `X | None` is X, and a dataclass is a section."""
  rest = [inner for inner in typing.get_args(hint) if inner is not type(None)]
  if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(rest) == 1:
    return _plain(rest[0])
  if (typing.get_origin(hint) or hint) in (Mapping, *_MAPPINGS) or dataclasses.is_dataclass(hint):
    return Mapping
  return hint if hint in (int, float, bool, str) else object
