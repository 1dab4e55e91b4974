"""Declarations of options: one place for an option's type, default, range and meaning.

Samplers, evaluators, metrics and feature extractors declare what they take as a mapping from names
to `Option`s. Sections of a config, modules and objectives are dataclasses, whose fields `option`
declares. Flags, `--help`, the checks before the first step and the messages all read it.
"""

import collections.abc
import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from errors import UserError, nearest


class Option(NamedTuple):
  """The declaration of one option.

  Attributes:
    type: `int`, `float`, `bool` or `str`; a whole number is taken where `float` is declared.
    default: the value where none is given; may be None, which means what `doc` says.
    doc: what the option does, one or two sentences for `--help`.
    low: the smallest value allowed, None for no bound.
    high: the largest value allowed, None for no bound.
    above: a bound that the value must exceed, None for none.
    below: a bound that the value must stay under, None for none.
    choices: the only words allowed; empty for any.
    each: '' for a single value, 'list' for a list of values, 'mapping' for a mapping from names to
      values. Type and bounds are those of every value.
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
    return ' and '.join(f'{word} {bound}' for word, bound in bounds if bound is not None)

  def check(self, value: Any, where: str) -> Any:
    """Returns the value as this option's type.

    Args:
      value: what was given; None stands for the default where that is None too, and a single value
        for a list of it.
      where: the option as a user writes it, e.g. '--temperature'.

    Raises:
      UserError: another type, not finite, or out of range.
    """
    if value is None and self.default is None:
      return None
    if self.each == 'list':
      values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
      shown = ','.join(map(str, values))
      return tuple(self._checked(one, f'{where}={shown}: {one}') for one in values)
    if self.each == 'mapping':
      if not isinstance(value, Mapping):
        raise UserError(f'{where}={value} must be a mapping from names to values')
      return {name: self._checked(one, f'{where}.{name}={one}') for name, one in value.items()}
    return self._checked(value, f'{where}={value}')

  def _checked(self, value: Any, shown: str) -> Any:
    """Returns one value as the type; `shown` is how messages begin."""
    value = self._typed(value, shown)
    if isinstance(value, float) and not math.isfinite(value):
      raise UserError(f'{shown} must be a finite number')
    if not self._allows(value):
      close = nearest(value, self.choices) if self.choices else ''
      raise UserError(f'{shown} must be {self.allowed}{close}')
    return value

  def _typed(self, value: Any, shown: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if self.type is float and is_number:
      return float(value)
    if isinstance(value, self.type) and (self.type is not int or is_number):
      return value
    names = {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a word'}
    raise UserError(f'{shown} must be {names[self.type]}')

  def _allows(self, value: Any) -> bool:
    if self.choices:
      return value in self.choices
    return (
      (self.low is None or value >= self.low)
      and (self.high is None or value <= self.high)
      and (self.above is None or value > self.above)
      and (self.below is None or value < self.below)
    )


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
    UserError: a name that is not declared, or a value of another type or out of range.
  """
  for name in given:
    if name not in declared:
      raise UserError(
        f'{prefix}{name} is no option of {owner}{nearest(name, declared)}; it has: '
        f'{", ".join(prefix + other for other in declared) or "none"}'
      )
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
) -> Any:
  """Declares a field of a dataclass whose value a config gives; see `Option`.

  The field's annotation is the option's type: `int`, `float`, `bool`, `str`, or `Sequence` or
  `Mapping` of one of them; any other is declared for its `doc` alone. Where a config always holds
  the value, the field has no default.
  """
  declared = dict(doc=doc, low=low, high=high, above=above, below=below, choices=tuple(choices))
  return dataclasses.field(default=default, metadata={_DECLARED: declared})


_DECLARED = 'option'
_TYPES = (int, float, bool, str)


def declared_options(target: Callable) -> dict[str, Option]:
  """Returns the options that the fields of a dataclass declare, by name; none of anything else.

  An option of a type that `Option` does not know is left out.
  """
  if not dataclasses.is_dataclass(target):
    return {}
  hints = typing.get_type_hints(target)
  found = {}
  for field in dataclasses.fields(target):
    if _DECLARED in field.metadata:
      type_, each = _type_of(hints[field.name])
      if type_ in _TYPES:
        found[field.name] = Option(type_, 0, each=each, **field.metadata[_DECLARED])
  return found


def _type_of(hint: Any) -> tuple[Any, str]:
  """The type of a value, and what an option of it is: `Sequence[int]` → (int, 'list')."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin in (collections.abc.Sequence, tuple, list):
    return inner[0], 'list'
  if origin in (collections.abc.Mapping, dict):
    return inner[1], 'mapping'
  return hint, ''


def check_section(section: Any, where: str) -> None:
  """Checks every field of a dataclass that `option` declares.

  Args:
    section: an instance of the dataclass.
    where: the section as a user writes it, e.g. 'config.train'.

  Raises:
    UserError: a value of another type, not finite, or out of range.
  """
  for name, declared in declared_options(type(section)).items():
    declared.check(getattr(section, name), f'{where}.{name}')
