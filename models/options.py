"""Choosing an entry of a mapping by the name that a config gives."""

from collections.abc import Mapping
from typing import TypeVar

from errors import UserError, nearest

Entry = TypeVar('Entry')


def choose(options: Mapping[str, Entry], name: str, field: str) -> Entry:
  """Returns `options[name]`, for the field `field` of the module `model`.

  Raises:
    UserError: there is no such entry; lists those there are.
  """
  if name not in options:
    raise UserError(
      f'config.modules.model.{field}={name} is not known{nearest(name, options)}; '
      f'choose one of {", ".join(options)}'
    )
  return options[name]
