"""Marks of tests beyond those that pytest has."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_where(is_slow: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
  """Returns the cases for `pytest.mark.parametrize`, some of them for `make test-all` alone."""
  return [pytest.param(case, marks=pytest.mark.slow) if is_slow(case) else case for case in cases]
