"""Declarations of options: one place for an option's type, default, range and meaning.

Samplers, evaluators, metrics and feature extractors declare what they take as a mapping from names
to `Option`s. Flags, `--help`, the checks before the first step and the messages all read it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

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
  """

  type: type
  default: Any
  doc: str
  low: float | None = None
  high: float | None = None
  above: float | None = None
  below: float | None = None
  choices: tuple[str, ...] = ()

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
      value: what was given; None stands for the default where that is None too.
      where: the option as a user writes it, e.g. '--temperature'.

    Raises:
      UserError: another type, not finite, or out of range.
    """
    if value is None and self.default is None:
      return None
    value = self._typed(value, where)
    if self.type is float and not math.isfinite(value):
      raise UserError(f'{where}={value} must be a finite number')
    if not self._allows(value):
      raise UserError(f'{where}={value} must be {self.allowed}')
    return value

  def _typed(self, value: Any, where: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if self.type is float and is_number:
      return float(value)
    if isinstance(value, self.type) and (self.type is not int or is_number):
      return value
    names = {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a word'}
    raise UserError(f'{where}={value} must be {names[self.type]}')

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
) -> Any:
  """Declares a field of a dataclass that is a section of a config; see `Option`.

  The value itself stands in the config, so there is no default here.
  """
  declared = dict(doc=doc, low=low, high=high, above=above, below=below, choices=tuple(choices))
  return dataclasses.field(metadata=declared)


def check_section(section: Any, where: str) -> None:
  """Checks every field of a dataclass that `option` declares.

  Args:
    section: an instance of the dataclass.
    where: the section as a user writes it, e.g. 'config.train'.

  Raises:
    UserError: a value of another type, not finite, or out of range.
  """
  hints = get_type_hints(type(section))
  for field in dataclasses.fields(section):
    if field.metadata and hints[field.name] in (int, float, bool, str):
      declared = Option(hints[field.name], 0, **field.metadata)
      declared.check(getattr(section, field.name), f'{where}.{field.name}')
