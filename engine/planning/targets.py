"""The devices that a program is compiled for without having them."""

import importlib.util
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from engine.planning.devices import Device, find_device
from engine.sharding import AXES
from errors import UserError

# What libtpu looks for on a machine of TPUs, and complains of where it is missing.
_NO_MACHINE = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}
# Chips of a machine along the axes of a topology, as libtpu assumes.
_HOST = (2, 2, 1)


class Target(NamedTuple):
  """The devices that a run is planned for, and how programs are compiled for them.

  Attributes:
    name: of the device, as a user gives it.
    device: its figures; None for a CPU.
    number: how many there are.
    topology: how they are connected, e.g. '16x16'; '' for GPUs and CPUs.
    exact: whether programs are compiled for the device itself; else for as many CPU devices.
  """

  name: str
  device: Device | None
  number: int
  topology: str
  exact: bool


def choose_target(name: str, number: int, topology: str) -> Target:
  """Returns the devices that a run is planned for.

  Args:
    name: of the device.
    number: how many.
    topology: how they are connected; '' for the form that is closest to a square or a cube.

  Raises:
    UserError: the device or the topology is unknown, or there are no slices of this size.
  """
  device = find_device(name)
  if device is None or not device.topology:
    if topology:
      raise UserError(
        f'--topology={topology} has no effect on --device={name}: only the TPUs v5e, v5p and v6e '
        'have one here; leave it out'
      )
    return Target(name, device, number, '', exact=device is None)
  if number > device.domain:
    raise UserError(
      f'{number} devices are more than a slice of {name} has, which is {device.domain}; plan a '
      'smaller mesh'
    )
  found = topology or 'x'.join(map(str, _shape(number, device.axes)))
  return Target(name, device, number, found, has_libtpu())


def has_libtpu() -> bool:
  """Whether the compiler for TPUs is installed."""
  return importlib.util.find_spec('libtpu') is not None


def topology_size(name: str, topology: str) -> int:
  """Returns the devices of a topology such as '16x16'.

  Raises:
    UserError: it is none of this device.
  """
  device = find_device(name)
  axes = device.axes if device else 0
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', topology) or topology.count('x') + 1 != axes:
    example = 'x'.join(map(str, _shape(64, axes))) if axes else ''
    form = f'{axes} sizes, such as {example}' if axes else 'none: leave it out'
    raise UserError(f'--topology={topology} is no topology of --device={name}, which has {form}')
  return math.prod(_sizes(topology))


def open_devices(target: Target) -> Sequence[jax.Device]:
  """Returns the devices to compile for: descriptions of TPUs, or CPU devices in their place.

  `jax_num_cpu_devices` must be as many, set before jax starts.

  Raises:
    UserError: there is no such topology.
  """
  if not target.topology or not target.exact:
    return jax.devices('cpu')[: target.number]
  from jax.experimental import topologies

  for variable, value in _NO_MACHINE.items():
    os.environ.setdefault(variable, value)
  assert target.device is not None
  sizes = _sizes(target.topology)
  by_host = all(size % host == 0 for size, host in zip(sizes, _HOST))
  options: Mapping[str, tuple[int, ...]] = {} if by_host else {'chips_per_host_bounds': (1, 1, 1)}
  name = f'{target.device.topology}:{target.topology}'
  try:
    return topologies.get_topology_desc(name, platform='tpu', **options).devices
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).strip().partition('\n')[0]
    raise UserError(
      f'libtpu knows no topology {name} ({reason}); choose another mesh or --topology'
    ) from error


def complete_mesh(mesh: Mapping[str, int], devices: int) -> dict[str, int]:
  """Returns the size of every axis: one that is −1 gets what is left of the devices.

  Args:
    mesh: axes and sizes; an axis that is not there is 1.
    devices: how many there are; 0 for as few as the other axes need.

  Raises:
    UserError: they do not make up the devices.
  """
  sizes = {axis: mesh.get(axis, 1) for axis in AXES}
  given = math.prod(size for size in sizes.values() if size != -1)
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1:
    raise UserError(f'--mesh leaves {" and ".join(free)} open (-1); give the size of all but one')
  if free:
    sizes[free[0]] = max(1, devices // given)
  product = math.prod(sizes.values())
  if devices and product != devices:
    shown = ' × '.join(f'{axis} {size}' for axis, size in sizes.items())
    raise UserError(
      f'the mesh has {product} devices ({shown}), and the topology {devices}; make them agree'
    )
  return sizes


def _sizes(topology: str) -> tuple[int, ...]:
  return tuple(map(int, topology.split('x')))


def _shape(number: int, axes: int) -> tuple[int, ...]:
  """The factors of a number that differ least, in ascending order; ones come last."""
  divisors = [size for size in range(1, number + 1) if number % size == 0]
  forms = [
    (*form, number // math.prod(form))
    for form in itertools.combinations_with_replacement(divisors, axes - 1)
    if number % math.prod(form) == 0 and number // math.prod(form) >= form[-1]
  ]
  best = min(forms, key=lambda form: form[-1] - form[0])
  return (*(size for size in best if size > 1), *(1 for size in best if size == 1))
