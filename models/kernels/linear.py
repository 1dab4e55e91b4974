"""Linear maps whose transposes are written out, under every transformation of JAX.

A `jax.custom_vjp` with a fast gradient rule forbids forward mode (`jax.jvp`, `jax.hessian`). The
kernels of this folder are `jax.custom_jvp`s instead, whose rules call linear maps with
`linear_call`: forward mode evaluates the map, reverse mode evaluates its written-out transpose.

`jax.custom_derivatives.linear_call` means the same, but as of jax 0.10.2 it has no batching rule
and cannot be differentiated in its residuals, so neither `jax.vmap` of a gradient nor a gradient
penalty works with it. Hence a primitive of our own, made the way that JAX documents
(https://docs.jax.dev/en/latest/jax-primitives.html).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Leaves = Sequence[Array]
# (residuals, operands) -> results, on flat lists: a map, and its transpose.
Maps = tuple[Callable[[Leaves, Leaves], Leaves], Callable[[Leaves, Leaves], Leaves]]


def linear_call(
  function: Callable[[Any, Any], Array],
  transpose: Callable[[Any, Array], Any],
  residuals: Any,
  operands: Any,
) -> Array:
  """Returns `function(residuals, operands)`, which is transposed into `transpose`.

  Both functions must be differentiable in the residuals for derivatives of second order. They may
  close over Python values, never over arrays.

  Args:
    function: (residuals, operands) -> one array, linear in the operands.
    transpose: (residuals, cotangent of that array) -> cotangents like the operands, the transpose
      of `function` in its operands.
    residuals: a pytree of arrays.
    operands: a pytree of arrays.
  """
  fixed, fixed_tree = jax.tree.flatten(residuals)
  given, given_tree = jax.tree.flatten(operands)

  def forward(fixed: Leaves, given: Leaves) -> Leaves:
    return [function(fixed_tree.unflatten(fixed), given_tree.unflatten(given))]

  def backward(fixed: Leaves, cotangents: Leaves) -> Leaves:
    found, tree = jax.tree.flatten(transpose(fixed_tree.unflatten(fixed), cotangents[0]))
    if tree != given_tree:
      raise TypeError(f'the transpose returned {tree} for operands {given_tree}')
    return found

  return _map.bind(*fixed, *given, maps=(forward, backward), residuals=len(fixed))[0]


def define_bilinear(
  function: jax.custom_jvp, left: Callable[..., Array], right: Callable[..., Array]
) -> None:
  """Gives a bilinear `function(a, b, *static)` derivatives of every order, in both modes.

  Args:
    function: a `jax.custom_jvp` whose arguments from the third on are `nondiff_argnums`.
    left: (cotangent, b, *static) -> cotangent of a.
    right: (cotangent, a, *static) -> cotangent of b.
  """

  def rule(*arguments: Any) -> tuple[Array, Array]:
    *static, (a, b), (da, db) = arguments
    y, parts = function(a, b, *static), []
    # What is not differentiated, as the images that a first layer reads, costs nothing.
    if not isinstance(da, SymbolicZero):
      along = lambda b, da: function(da, b, *static)  # noqa: E731
      parts.append(linear_call(along, lambda b, g: left(g, b, *static), b, da))
    if not isinstance(db, SymbolicZero):
      along = lambda a, db: function(a, db, *static)  # noqa: E731
      parts.append(linear_call(along, lambda a, g: right(g, a, *static), a, db))
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)

  function.defjvp(rule, symbolic_zeros=True)


# --- the primitive --------------------------------------------------------------------------------

_map = Primitive('linear_map')
_map.multiple_results = True


def _evaluate(*arguments: Array, maps: Maps, residuals: int) -> Leaves:
  return maps[0](arguments[:residuals], arguments[residuals:])


def _shapes(*arguments: Any, maps: Maps, residuals: int) -> Sequence[Any]:
  function = lambda *given: _evaluate(*given, maps=maps, residuals=residuals)  # noqa: E731
  return jax.make_jaxpr(function)(*arguments).out_avals


def _differentiate(primals: Leaves, tangents: Sequence[Any], *, maps: Maps, residuals: int):
  """The map of the operands' tangents, and the derivative of the map in its residuals."""
  fixed, given = primals[:residuals], primals[residuals:]
  results = _map.bind(*primals, maps=maps, residuals=residuals)
  parts = []
  if not all(_is_zero(t) for t in tangents[residuals:]):
    moved = map(ad.instantiate_zeros, tangents[residuals:])
    parts.append(_map.bind(*fixed, *moved, maps=maps, residuals=residuals))
  active = [i for i, t in enumerate(tangents[:residuals]) if not _is_zero(t)]
  if active:

    def along(*changed: Array) -> Leaves:
      every = dict(enumerate(fixed)) | dict(zip(active, changed))
      return maps[0]([*every.values()], given)

    at, towards = ([values[i] for i in active] for values in (fixed, tangents))
    parts.append(jax.jvp(along, at, towards)[1])
  return results, [sum(terms[1:], terms[0]) for terms in zip(*parts)]


def _is_zero(tangent: Any) -> bool:
  return type(tangent) is ad.Zero


def _transpose(cotangents: Sequence[Any], *arguments: Any, maps: Maps, residuals: int):
  fixed, given = arguments[:residuals], arguments[residuals:]
  cotangents = map(ad.instantiate_zeros, cotangents)
  found = _map.bind(*fixed, *cotangents, maps=maps[::-1], residuals=residuals)
  linear = [g if ad.is_undefined_primal(x) else None for g, x in zip(found, given, strict=True)]
  return [None] * residuals + linear


def _batch(arguments: Leaves, axes: Sequence[int | None], *, maps: Maps, residuals: int):
  """Maps both functions over a leading axis of what is batched."""
  arguments = [x if i is None else jnp.moveaxis(x, i, 0) for x, i in zip(arguments, axes)]
  axes = [None if i is None else 0 for i in axes]
  fixed_axes, given_axes = axes[:residuals], axes[residuals:]

  def forward(fixed: Leaves, given: Leaves) -> Leaves:
    return jax.vmap(maps[0], (fixed_axes, given_axes))([*fixed], [*given])

  def backward(fixed: Leaves, cotangents: Leaves) -> Leaves:
    found = jax.vmap(maps[1], (fixed_axes, 0))([*fixed], [*cotangents])
    # An operand that all of the batch shares has the sum of their cotangents.
    return [g.sum(axis=0) if i is None else g for g, i in zip(found, given_axes, strict=True)]

  results = _map.bind(*arguments, maps=(forward, backward), residuals=residuals)
  return results, [0] * len(results)


_map.def_impl(_evaluate)
_map.def_abstract_eval(_shapes)
ad.primitive_jvps[_map] = _differentiate
ad.primitive_transposes[_map] = _transpose
batching.primitive_batchers[_map] = _batch
mlir.register_lowering(_map, mlir.lower_fun(_evaluate, multiple_results=True))
