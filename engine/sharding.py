"""Meshes of devices, and which leaf of the state lives on which of them."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from errors import UserError, nearest
from objectives.base import merge_variables
from options import option

AXES = ('lane', 'data', 'fsdp', 'tensor')
BATCH = PartitionSpec(('data', 'fsdp'))
# Pairs (pattern, axes). Axes are one entry for each axis of a parameter: a mesh axis, several, or
# None. The name of a mesh axis alone is for the largest axis of the parameter that it divides; such
# a parameter is gathered where a step uses it.
Rules = Sequence[tuple[str, Sequence[Any]]]
# Parameters of fewer elements stay whole under a rule that names a mesh axis alone: to gather a
# bias or a scale costs more time than its memory is worth.
SMALLEST_SPLIT = 1024


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The options of `config.mesh`: devices along each axis, whose product is all of them."""

  lane: int = option('Devices that lanes are shared out over; -1 is all left.', low=1, also=(-1,))
  data: int = option('Devices that a batch is split over; -1 is all left.', low=1, also=(-1,))
  fsdp: int = option(
    'Devices that a batch is split over, and parameters with their optimizer state and averages by '
    'config.sharding; -1 is all left.',
    low=1,
    also=(-1,),
  )
  tensor: int = option(
    'Devices that parameters are split over by config.sharding; -1 is all left.', low=1, also=(-1,)
  )


def make_mesh(
  *,
  lane: int,
  data: int,
  fsdp: int,
  tensor: int,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Arranges all devices as `lane × data × fsdp × tensor`; one size may be −1, for what is left.

  Args:
    lane: devices along this axis; the next three likewise.
    data: see `lane`.
    fsdp: see `lane`.
    tensor: see `lane`.
    devices: those to arrange; None for all that jax finds here.

  Raises:
    UserError: the product is not the number of devices.
  """
  sizes = [lane, data, fsdp, tensor]
  count = jax.device_count() if devices is None else len(devices)
  if sizes.count(-1) == 1:
    rest = math.prod(size for size in sizes if size != -1)
    sizes[sizes.index(-1)] = count // rest if rest > 0 else 0
  if min(sizes) < 1 or math.prod(sizes) != count:
    raise UserError(
      f'config.mesh asks for lane × data × fsdp × tensor = {lane} × {data} × {fsdp} × {tensor}, '
      f'but there are {count} devices; make the product {count}, or set one of them to -1'
    )
  kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.make_mesh(tuple(sizes), AXES, axis_types=kinds, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis over `data` and `fsdp`."""
  return NamedSharding(mesh, BATCH)


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """Raises UserError unless every microbatch splits evenly over the devices."""
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size < 1 or accumulate < 1 or batch_size % (ways * accumulate):
    raise UserError(
      f'config.data.batch_size={batch_size} cannot be split over {ways} devices (data × fsdp) and '
      f'config.train.accumulate={accumulate}; make it a multiple of {ways * max(accumulate, 1)}'
    )


def check_rules(rules: Any) -> None:
  """Checks that the value of `config.sharding` has the form of rules.

  Raises:
    UserError: it is no list of pairs `(regex, axes)`, or an axis is unknown or used twice.
  """
  if not isinstance(rules, (list, tuple)):
    raise UserError(f'config.sharding={rules} must be a list of rules, {_EXAMPLE}')
  for rule in rules:
    _check_form(rule)


_EXAMPLE = 'such as (("kernel$", (None, "fsdp")), (".*", "fsdp"))'


def _check_form(rule: Any) -> None:
  pair = isinstance(rule, (list, tuple)) and len(rule) == 2 and isinstance(rule[0], str)
  if not pair or not isinstance(rule[1], (list, tuple, str)):
    raise UserError(f'config.sharding has {rule!r}, which is no rule (regex, axes), {_EXAMPLE}')
  pattern, axes = rule
  try:
    re.compile(pattern)
  except re.error as error:
    raise UserError(
      f'config.sharding has the pattern "{pattern}", which is no regular expression: {error}'
    ) from error
  entries = [axes] if isinstance(axes, str) else axes
  names = [
    name for axis in entries for name in (axis if isinstance(axis, (list, tuple)) else [axis])
  ]
  used = [name for name in names if name is not None]
  for name in used:
    if name not in AXES:
      raise UserError(
        f'config.sharding rule {_shown(pattern, axes)}: there is no mesh axis "{name}"'
        f'{nearest(name, AXES)}; use {", ".join(AXES)}, or None for an axis that is not split'
      )
    if used.count(name) > 1:
      raise UserError(
        f'config.sharding rule {_shown(pattern, axes)} splits two axes over "{name}"; each '
        'axis of the mesh can split one'
      )


def _shown(pattern: str, axes: Any) -> str:
  """A rule as a user writes it."""
  return f'("{pattern}", {axes!r})' if isinstance(axes, str) else f'("{pattern}", {tuple(axes)})'


def path_name(path: Sequence[Any]) -> str:
  """'generator/hidden_0/kernel' for a pytree path."""
  return '/'.join(str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k)))) for k in path)


def state_shardings(state: Any, modules: Mapping[str, str], rules: Rules, mesh: Mesh) -> Any:
  """Returns the sharding of every leaf of an abstract `State` of one lane.

  A parameter follows the first rule whose pattern is found (`re.search`) in its path
  `MODULE/…/NAME`, else it is replicated. A rule that names a mesh axis alone splits the largest
  axis of the parameter that the devices along it divide, if there is one; parameters of fewer
  elements than `SMALLEST_SPLIT` stay whole. Its averages live where it lives, and so do optimizer
  statistics that have its path as the end of theirs and its shape. Everything else is replicated.

  Args:
    state: shapes of the state.
    modules: the module of each average.
    rules: patterns and axes.
    mesh: of the devices.

  Raises:
    UserError: a rule names an axis the mesh lacks, or does not fit a parameter it matches.
  """
  leaves = jax.tree_util.tree_leaves_with_path(state.params)
  paths = [path_name(path) for path, _ in leaves]
  if rules and not any(re.search(pattern, path) for pattern, _ in rules for path in paths):
    raise UserError(
      'config.sharding has no effect: none of its patterns is found in the path of a parameter, '
      f'such as {paths[0]}; mend them, or leave it empty'
    )
  placed = {
    path_name(path): (leaf.shape, _spec(path_name(path), leaf.shape, rules, mesh))
    for path, leaf in leaves
  }

  def place(path, leaf):
    parts = path_name(path).split('/')
    for start in range(len(parts)):
      shape, spec = placed.get('/'.join(parts[start:]), (None, None))
      if spec is not None and shape == leaf.shape:
        return NamedSharding(mesh, spec)
    return NamedSharding(mesh, PartitionSpec())

  shardings = jax.tree_util.tree_map_with_path(place, state)
  # Averages lie as what they are averages of.
  newest = merge_variables(shardings.params, shardings.mutable)
  return shardings.replace(ema={name: newest[module] for name, module in modules.items()})


def gather(params: Any, rules: Rules, mesh: Mesh) -> Any:
  """Returns parameters for a loss; those split by a rule of one axis name are gathered.

  Without it the partitioner may split activations by their features, as it finds parameters split,
  and then each device computes the whole batch. The gradients are split as the parameters are. What
  a rule splits by entries for its axes stays so, as the layers of a scan, gathered one by one.

  Args:
    params: `{module: parameters}` of one lane, inside jit.
    rules: of `config.sharding`.
    mesh: of the devices.
  """

  def whole(path: Sequence[Any], leaf: jax.Array) -> jax.Array:
    name = path_name(path)
    split = _spec(name, leaf.shape, rules, mesh)
    if split == PartitionSpec() or not isinstance(_axes(name, rules), str):
      return leaf
    return _gathered(leaf, NamedSharding(mesh, split))

  return jax.tree_util.tree_map_with_path(whole, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(leaf: jax.Array, split: NamedSharding) -> jax.Array:
  """A copy of the leaf on every device; its gradient is split."""
  return jax.lax.with_sharding_constraint(leaf, NamedSharding(split.mesh, PartitionSpec()))


def _gathered_forward(leaf: jax.Array, split: NamedSharding) -> tuple[jax.Array, None]:
  return _gathered(leaf, split), None


def _gathered_backward(split: NamedSharding, _: None, gradient: jax.Array) -> tuple[jax.Array]:
  return (jax.lax.with_sharding_constraint(gradient, split),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _axes(name: str, rules: Rules) -> Any:
  """The axes of the first rule that a path matches; () without one."""
  return next((axes for pattern, axes in rules if re.search(pattern, name)), ())


def _spec(name: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh) -> PartitionSpec:
  for pattern, axes in rules:
    if re.search(pattern, name):
      if isinstance(axes, str):
        return _largest_split(shape, axes, mesh.shape[axes])
      _check_rule(name, shape, pattern, axes, mesh)
      return PartitionSpec(*(tuple(a) if isinstance(a, (list, tuple)) else a for a in axes))
  return PartitionSpec()


def _largest_split(shape: tuple[int, ...], axis: str, ways: int) -> PartitionSpec:
  """Splits the largest axis that the devices of a mesh axis divide; of equal ones the last."""
  dividing = [i for i, size in enumerate(shape) if size % ways == 0]
  if ways == 1 or not dividing or math.prod(shape) < SMALLEST_SPLIT:
    return PartitionSpec()
  chosen = max(dividing, key=lambda i: (shape[i], i))
  return PartitionSpec(*[None] * chosen, axis)


def _check_rule(name: str, shape, pattern: str, axes, mesh: Mesh) -> None:
  where = f'config.sharding rule {_shown(pattern, axes)} on parameter {name} {tuple(shape)}'
  if len(axes) > len(shape):
    raise UserError(f'{where}: the rule has more axes than the parameter')
  for size, axis in zip(shape, axes):
    names = [axis] if isinstance(axis, str) else list(axis or ())
    unknown = [entry for entry in names if entry not in mesh.shape]
    if unknown:
      raise UserError(f'{where}: there is no mesh axis "{unknown[0]}"; use {", ".join(AXES)}')
    ways = math.prod(mesh.shape[entry] for entry in names)
    if size % ways:
      raise UserError(
        f'{where}: {size} is not divisible by the {ways} devices of {" × ".join(names)}; choose '
        f'sizes of {" and ".join(f"config.mesh.{entry}" for entry in names)} that divide it, or '
        'change the rule'
      )
