"""Optimizer states in the host's memory: which of their arrays live there, and how they move."""

from collections.abc import Mapping
from typing import Any

import jax

from engine.optimizers import Optimizer
from errors import UserError

# The memory of the host that a device copies from and to without the CPU.
KIND = 'pinned_host'


def in_host_memory(leaf: Any) -> bool:
  """Whether an array, or its description, lies in the host's memory."""
  return getattr(leaf.sharding, 'memory_kind', None) == KIND


def placed(
  places: Mapping[str, Any], shapes: Mapping[str, Any], optimizers: Mapping[str, Optimizer]
) -> dict[str, Any]:
  """Returns the shardings of optimizer states, in the host's memory where `offload` asks for it.

  Args:
    places: `{optimizer: shardings}`, as on the devices.
    shapes: `{optimizer: shapes}`, of the same structure.
    optimizers: by name.
  """

  def moved(place: Any, leaf: Any) -> Any:
    return place.with_memory_kind(KIND) if leaf.ndim else place

  return {
    name: jax.tree.map(moved, tree, shapes[name]) if optimizers[name].offload else tree
    for name, tree in places.items()
  }


def check_offload(optimizers: Mapping[str, Optimizer], device: jax.Device, lanes: int) -> None:
  """Checks that the states that are to live in the host's memory can.

  Args:
    optimizers: by name.
    device: any of the mesh.
    lanes: trainings side by side.

  Raises:
    UserError: the device does not reach the host's memory, or there are several lanes.
  """
  for name, optimizer in optimizers.items():
    if not optimizer.offload:
      continue
    where = f'config.optimizer.{name}.offload=True'
    kinds = sorted(memory.kind for memory in device.addressable_memories())
    if KIND not in kinds:
      raise UserError(
        f'{where} needs memory of the kind {KIND}, and a {device.platform} device of this jax has '
        f'{", ".join(kinds) or "none"}; set it to False'
      )
    if lanes > 1:
      raise UserError(
        f'{where} moves the state of one training, and there are {lanes} lanes; set it to False, '
        'or train seeds and folds one by one'
      )
