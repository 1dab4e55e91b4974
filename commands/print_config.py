"""A config written as a file that `--config` reads."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from engine.build import to_plain

_FILE = '''"""A complete config, written by train.py --print_config."""
{imports}
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict({values})
'''


def config_file(config: ConfigDict) -> str:
  """Returns the Python text of a config file whose `get_config()` returns an equal config."""
  plain = to_plain(config)
  imports = '\nfrom math import inf, nan' if _holds_non_finite(plain) else ''
  return _FILE.format(imports=imports, values=_literal(plain, '  '))


def _literal(value: Any, indent: str) -> str:
  """A value as Python writes it, a mapping with a line for each key."""
  if not isinstance(value, Mapping) or not value:
    return repr(value)
  deeper = f'{indent}  '
  lines = [f'{deeper}{key!r}: {_literal(entry, deeper)},\n' for key, entry in value.items()]
  return f'{{\n{"".join(lines)}{indent}}}'


def _holds_non_finite(value: Any) -> bool:
  if isinstance(value, Mapping):
    return any(_holds_non_finite(entry) for entry in value.values())
  if isinstance(value, tuple):
    return any(_holds_non_finite(entry) for entry in value)
  return isinstance(value, float) and not math.isfinite(value)
