"""How tests compile: fast rather than well, and once."""

import functools
from collections.abc import Callable

import jax


def jit(function: Callable) -> Callable:
  """`jax.jit` that compiles fast and runs slowly: in tests arrays are tiny and programs many."""
  options = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
  return jax.jit(function, compiler_options=options)


def once_per_options(function: Callable) -> Callable:
  """`function(options)`, remembered: compiled once for all tests."""
  made = functools.cache(lambda items: function(dict(items)))
  return lambda options: made(tuple(sorted(options.items())))
