"""Floating-point operations of a traced function: its matrix products and convolutions."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(jaxpr: core.Jaxpr) -> int:
  """Returns an estimate of the operations of one call, a multiplication and its addition being 2.

  Element-wise operations and decompositions are left out. A scan counts as often as it runs, which
  `cost_analysis()` of XLA does not do; a `while_loop`, whose length only a call knows, counts once.
  Of the branches of a `cond` the most costly one counts, of one that is taken every n-th step the
  mean over n steps, and of the forms that an operation has for several platforms the least costly:
  others compute products with zeros.
  """
  return _count(_live(jaxpr), frozenset(), _flops_of)


def count_recomputed(jaxpr: core.Jaxpr) -> int:
  """Returns those operations of one call that repeat a forward pass, in `jax.checkpoint`.

  In a backward pass they are those that do not depend on the gradient of what was computed.
  """
  return _count(_live(jaxpr), frozenset(), _recomputed_of)


# Variables -> n, where a variable is true in every n-th step.
_Periods = Mapping[Any, int]
# An equation, the variables that number platforms, and periods -> its operations.
_CountOf = Callable[[core.JaxprEqn, frozenset[Any], _Periods], int]


def _count(jaxpr: core.Jaxpr, platforms: frozenset[Any], count_of: _CountOf) -> int:
  """The operations of a function, some of whose variables number platforms."""
  total = 0
  periods: dict[Any, int] = {}
  for equation in jaxpr.eqns:
    kind = equation.primitive.name
    periods.update(dict.fromkeys(equation.outvars, _period(equation, periods)))
    derived = kind in _OF_INDEX and not platforms.isdisjoint(_variables(equation))
    if kind == _PLATFORM or derived:
      platforms |= frozenset(equation.outvars)
    total += count_of(equation, platforms, periods)
  return total


def _period(equation: core.JaxprEqn, periods: _Periods) -> int:
  """Returns n where an equation is part of `number % n == 0`, as a branch reads it; else 0."""
  kind, inputs = equation.primitive.name, equation.invars
  if equation.params.get('name') == 'remainder' and isinstance(inputs[1], core.Literal):
    return int(inputs[1].val)
  known = _known(inputs[0], periods) if inputs else 0
  if kind == 'eq':
    zero = isinstance(inputs[1], core.Literal) and not np.any(inputs[1].val)
    return known if zero else 0
  return known if kind == 'convert_element_type' else 0


def _known(variable: Any, periods: _Periods) -> int:
  return periods.get(variable, 0) if isinstance(variable, core.Var) else 0


def _flops_of(equation: core.JaxprEqn, platforms: frozenset[Any], periods: _Periods) -> int:
  kind = equation.primitive.name
  if kind in _COUNTS:
    return _COUNTS[kind](equation)
  if kind in _EVALUATED:
    inputs = [jax.ShapeDtypeStruct(_array(v).shape, _array(v).dtype) for v in equation.invars]
    return count_flops(_evaluation(equation, inputs))
  return _within(equation, platforms, periods, _flops_of)


def _recomputed_of(equation: core.JaxprEqn, platforms: frozenset[Any], periods: _Periods) -> int:
  if equation.primitive.name in _REPEATED and equation.params['differentiated']:
    (inner,) = map(_live, _inner_jaxprs(equation.params))
    known = _known_within(equation, inner, platforms)
    repeated = inner.replace(eqns=[*_before_gradients(inner)])
    return _count(repeated, known, _flops_of)
  return _within(equation, platforms, periods, _recomputed_of)


def _within(
  equation: core.JaxprEqn, platforms: frozenset[Any], periods: _Periods, count_of: _CountOf
) -> int:
  """The operations of the functions that an equation calls."""
  counts = [
    _count(inner, _known_within(equation, inner, platforms), count_of)
    for inner in map(_live, _inner_jaxprs(equation.params))
  ]
  kind = equation.primitive.name
  if kind == 'cond':
    index = equation.invars[0]
    every = _known(index, periods)
    if every and len(counts) == 2:
      return (counts[0] * (every - 1) + counts[1]) // every
    by_platform = isinstance(index, core.Var) and index in platforms
    return min(counts) if by_platform else max(counts)
  return sum(counts) * equation.params.get('length', 1)


def _live(jaxpr: core.Jaxpr) -> core.Jaxpr:
  """A function without what its results do not need, which is not compiled either."""
  return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def _known_within(
  equation: core.JaxprEqn, inner: core.Jaxpr, platforms: frozenset[Any]
) -> frozenset[Any]:
  """The inputs of a function that an equation calls which number platforms."""
  given = equation.invars[len(equation.invars) - len(inner.invars) :]
  if len(given) != len(inner.invars):
    return frozenset()
  pairs = zip(given, inner.invars)
  return frozenset(to for each, to in pairs if isinstance(each, core.Var) and each in platforms)


def _variables(equation: core.JaxprEqn) -> frozenset[Any]:
  return frozenset(each for each in equation.invars if isinstance(each, core.Var))


def _before_gradients(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
  """The equations that do not depend on the last input, which is a gradient."""
  depends = {jaxpr.invars[-1]}
  for equation in jaxpr.eqns:
    if depends.isdisjoint(_variables(equation)):
      yield equation
    else:
      depends.update(equation.outvars)


def largest_product(jaxpr: core.Jaxpr) -> int:
  """Returns the bytes of the largest matrix product or convolution that a function computes."""
  largest = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name in (*_COUNTS, *_EVALUATED):
      result = _array(equation.outvars[0])
      largest = max(largest, result.size * result.dtype.itemsize)
    largest = max([largest, *map(largest_product, _inner_jaxprs(equation.params))])
  return largest


def _evaluation(equation: core.JaxprEqn, inputs: list[jax.ShapeDtypeStruct]) -> core.Jaxpr:
  """The jaxpr inside an equation of a higher-order primitive."""
  evaluate = functools.partial(equation.primitive.impl, **equation.params)
  return jax.make_jaxpr(evaluate)(*inputs).jaxpr


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
  """The functions that an equation calls."""
  for value in params.values():
    for each in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(each, core.ClosedJaxpr):
        yield each.jaxpr
      elif isinstance(each, core.Jaxpr):
        yield each


def _array(variable: Any) -> Any:
  """Shape and dtype of a variable; the hints of jax know them of no `AbstractValue`."""
  return variable.aval


def _of_product(equation: core.JaxprEqn) -> int:
  """2·(size of the result)·(length of the sums)."""
  (contracted, _), _ = equation.params['dimension_numbers']
  shape = _array(equation.invars[0]).shape
  return 2 * _array(equation.outvars[0]).size * math.prod(shape[axis] for axis in contracted)


def _of_attention(equation: core.JaxprEqn) -> int:
  """Of the products of all queries with all keys and of that with the values; in a gradient twice.

  A mask does not lower the count, and scores that a gradient computes again do not raise it.
  """
  query, key = (_array(variable).shape for variable in equation.invars[:2])
  length = key[1 if equation.params['layout'] == _LENGTH_BEFORE_HEADS else 2]
  products = 2 * 2 * math.prod(query) * length
  return 2 * products if equation.primitive.name == _BACKWARD else products


def _of_convolution(equation: core.JaxprEqn) -> int:
  """2·(products of values that are there), not those with padding or with a dilation's zeros."""
  params, (image, kernel) = equation.params, (_array(v).shape for v in equation.invars)
  result = _array(equation.outvars[0]).shape
  numbers = params['dimension_numbers']
  taps = 1
  for i, (window, padding) in enumerate(zip(params['window_strides'], params['padding'])):
    places = np.arange(result[numbers.out_spec[2 + i]])[:, None] * window - padding[0]
    offsets = np.arange(kernel[numbers.rhs_spec[2 + i]])[None] * params['rhs_dilation'][i]
    dilation, size = params['lhs_dilation'][i], image[numbers.lhs_spec[2 + i]]
    at = places + offsets
    taps *= int(((at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)).sum())
  examples, channels = (result[axis] for axis in numbers.out_spec[:2])
  return 2 * examples * channels * kernel[numbers.rhs_spec[1]] * taps


# What `jax.checkpoint` is in a jaxpr, by release.
_REPEATED = ('remat2', 'checkpoint')
# Of `lax.platform_dependent`: the number of the platform, and what is computed of it.
_PLATFORM = 'platform_index'
_OF_INDEX = ('clamp', 'convert_element_type', 'min', 'max')
# Primitives of our own: the linear maps of models/kernels/linear.py.
_EVALUATED = ('linear_map',)
# Attention by cuDNN's kernels.
_FORWARD, _BACKWARD = 'dot_product_attention_fwd_wrapper', 'dot_product_attention_bwd_wrapper'
_LENGTH_BEFORE_HEADS = 0
_COUNTS = {
  'dot_general': _of_product,
  'conv_general_dilated': _of_convolution,
  _FORWARD: _of_attention,
  _BACKWARD: _of_attention,
}
