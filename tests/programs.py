"""Programs of tests, compiled once."""

import functools
from collections.abc import Callable


def once_per_options(function: Callable) -> Callable:
  """`function(options)`, remembered: compiled once for all tests."""
  made = functools.cache(lambda items: function(dict(items)))
  return lambda options: made(tuple(sorted(options.items())))
