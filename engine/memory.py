"""The memory that a run needs against what the devices have, and running out of it, in words."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from engine.host_memory import in_host_memory
from engine.state import Weights, weights
from errors import UserError

if TYPE_CHECKING:  # A session reads the options of checkpoints, which read this file.
  from engine.session import Session

_MEMINFO = Path('/proc/meminfo')
# Sizes of this process in pages, its address space first.
_PAGES = Path('/proc/self/statm')
# Limit and use of a container, in control groups of version 2 and 1.
_CONTAINERS = (
  (Path('/sys/fs/cgroup'), 'memory.max', 'memory.current'),
  (Path('/sys/fs/cgroup/memory'), 'memory.limit_in_bytes', 'memory.usage_in_bytes'),
)
# What XLA says; a CPU that cannot allocate calls it INTERNAL.
_OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'Out of memory')
# Of the use of a container, what the system gives up when memory is short.
_CACHE = ('active_file', 'inactive_file')


class Need(NamedTuple):
  """The least that a run needs on one device, in bytes.

  Attributes:
    parts: bytes by what they hold, as a person calls it.
    smaller: what makes it smaller, as a person does it.
  """

  parts: Mapping[str, int]
  smaller: tuple[str, ...]

  @property
  def total(self) -> int:
    return sum(self.parts.values())


def training_need(session: Session) -> Need:
  """Returns the least that training needs on a device: the activations are not counted."""
  state = session.abstract
  # Gradients live while the optimizer reads them; of several players those of one at a time.
  lane = session.lane_abstract.params
  gradients = max(
    _bytes({name: lane[name] for name in player.moves}) for player in session.objective.players
  )
  parts = {
    'parameters': _bytes((state.params, state.mutable)),
    'optimizers': _bytes(_on_device(state.opt_state)),
    'averages': _bytes(state.ema),
    'gradients': gradients,
    'a batch': _batch_bytes(session),
  }
  largest = max(parts, key=lambda name: parts[name])
  smaller = ['a smaller config.data.batch_size'] if largest == 'a batch' else []
  smaller.append(_smaller_modules(session))
  if session.lanes.number > 1:
    smaller.append(f'fewer lanes than {session.lanes.number} (config.seeds, config.data.folds)')
  if state.ema:
    smaller.append('no averages in config.ema')
  if session.mesh.size > 1:
    smaller.append('a larger config.mesh.fsdp, which splits the state by config.sharding')
  return Need({name: size for name, size in parts.items() if size}, tuple(smaller))


def resident_need(nbytes: int) -> Need:
  """Returns what a split of `nbytes` needs on a device that holds it."""
  return Need({'examples': nbytes}, ('config.data.resident_mb=0, which streams them',))


def product_need(largest: int, session: Session) -> Need:
  """Returns the least that the largest product of a step, of `largest` bytes, needs on a device."""
  smaller = ['a smaller config.data.batch_size', 'a larger config.train.accumulate (microbatches)']
  size = largest // (session.mesh.size // session.mesh.shape['lane'])
  return Need({'its largest product': size}, (*smaller, _smaller_modules(session)))


def drawn_need(rows: int, one: jax.ShapeDtypeStruct, option: str) -> Need:
  """Returns the least that samples need on a device.

  Args:
    rows: how many are drawn at once.
    one: the shape and type of one sample.
    option: what makes them fewer, as a user writes it.
  """
  size = rows * math.prod(one.shape) * one.dtype.itemsize
  return Need({'samples': size}, (f'a smaller {option}',))


def weights_need(session: Session) -> Need:
  """Returns the least that sampling and evaluating need on a device: the weights of all lanes."""
  held: Weights = weights(session.abstract)
  smaller = ['a device or machine with more memory']
  if session.mesh.size > 1:
    smaller.append('--mesh=fsdp:N with the sharding rules of --config.sharding')
  return Need({'weights': _bytes(held)}, tuple(smaller))


def check_memory(need: Need, what: str) -> None:
  """Raises UserError where the devices here have less free memory than is needed.

  Args:
    need: on one device.
    what: what needs it, as a sentence begins, e.g. 'the run'.
  """
  device = jax.local_devices()[0]
  free = free_bytes(device)
  # Devices without memory of their own share the host's.
  needed = need.total * (1 if _has_own(device) else jax.local_device_count())
  if free is None or needed <= free:
    return
  parts = ', '.join(f'{name} {_written(size)}' for name, size in need.parts.items())
  where = f'{device.device_kind} has' if _has_own(device) else 'this machine has'
  raise UserError(
    f'{what} needs at least {_written(needed)} of memory ({parts}), and {where} {_written(free)} '
    f'free; what makes it smaller: {"; ".join(need.smaller)}'
  )


@contextmanager
def memory_errors(smaller: str) -> Iterator[None]:
  """Within it, running out of memory is a UserError.

  Args:
    smaller: what makes the need smaller, as a person does it.
  """
  try:
    yield
  except Exception as error:
    if not is_out_of_memory(error):
      raise
    device = jax.local_devices()[0]
    place = f'of {device.device_kind}' if _has_own(device) else 'of this machine'
    first = str(error).strip().splitlines()[:1]
    raise UserError(
      f'the memory {place} does not suffice ({"".join(first)[:160] or type(error).__name__}); what '
      f'makes the need smaller: {smaller}'
    ) from error


def is_out_of_memory(error: BaseException | None) -> bool:
  """Whether an error, or one that it comes from, is of memory; a full disk is not."""
  while error is not None:
    if isinstance(error, MemoryError):
      return True
    if isinstance(error, jax.errors.JaxRuntimeError) and any(
      words in str(error) for words in _OUT_OF_MEMORY
    ):
      return True
    error = error.__cause__
  return False


def free_bytes(device: jax.Device) -> int | None:
  """Returns the free memory of a device, or of the host where it has none; None if not known."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  return _host_free()


def _has_own(device: jax.Device) -> bool:
  return 'bytes_limit' in (device.memory_stats() or {})


def _host_free() -> int | None:
  """The memory that this process may still take; None where the system does not say."""
  found = [_available(), _limit_free(), *(_container_free(*names) for names in _CONTAINERS)]
  known = [each for each in found if each is not None]
  return min(known) if known else None


def _available() -> int | None:
  try:
    for line in _MEMINFO.read_text().splitlines():
      if line.startswith('MemAvailable:'):
        return 1024 * int(line.split()[1])
  except (OSError, ValueError, IndexError):
    pass
  try:  # Without /proc, all the memory that the machine has.
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (OSError, ValueError):
    return None


def _limit_free() -> int | None:
  """Address space that the process may still take below `ulimit -v`; None without such a limit."""
  try:
    import resource  # There is none on Windows.

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = int(_PAGES.read_text().split()[0]) * os.sysconf('SC_PAGE_SIZE')
  except (ImportError, OSError, ValueError, IndexError):
    return None
  return None if most == resource.RLIM_INFINITY else max(0, most - taken)


def _container_free(folder: Path, limit: str, used: str) -> int | None:
  """Free bytes below the memory limit of a container; None without a limit."""
  try:
    most, now = (int((folder / name).read_text()) for name in (limit, used))
    counts = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
  except (OSError, ValueError):  # no such group, or a limit of 'max'
    return None
  return max(0, most - now + sum(int(counts.get(name, 0)) for name in _CACHE))


def _bytes(tree: Any) -> int:
  """Bytes of a tree of `jax.ShapeDtypeStruct`s on one device, by their shardings."""
  return sum(map(_leaf_bytes, jax.tree.leaves(tree)))


def _on_device(tree: Any) -> list[Any]:
  """The leaves that take the memory of a device; its own, where the host's is another."""
  leaves = jax.tree.leaves(tree)
  apart = _has_own(jax.local_devices()[0])
  return [leaf for leaf in leaves if not (apart and in_host_memory(leaf))]


def _leaf_bytes(leaf: jax.ShapeDtypeStruct) -> int:
  shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
  return math.prod(shape) * leaf.dtype.itemsize


def _batch_bytes(session: Session) -> int:
  """Bytes on one device of the examples of a step, as they are read."""
  example = sum(
    math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in session.spec.features.values()
  )
  return session.per_step * example // (session.mesh.shape['data'] * session.mesh.shape['fsdp'])


def _smaller_modules(session: Session) -> str:
  """The module with most parameters, and those of its options that are sizes."""
  sizes = {name: _bytes(tree) for name, tree in session.lane_abstract.params.items()}
  largest = max(sizes, key=lambda name: sizes[name])
  section = session.config.modules[largest]
  options = [key for key, value in section.items() if _is_size(value)]
  where = f'config.modules.{largest}'
  places = [f'{where}.{key}' for key in options] or [where]
  for key, value in session.config.objective.items():
    if key.endswith('_size') and _is_size(value):
      places.append(f'config.objective.{key}')
  return f'smaller {", ".join(places)}'


def _is_size(value: Any) -> bool:
  values = value if isinstance(value, tuple) else (value,)
  return bool(values) and all(type(one) is int and one > 1 for one in values)


def _written(size: int) -> str:
  """Bytes as a person reads them, e.g. '46 GB'."""
  for unit, factor in (('PB', 1e15), ('TB', 1e12), ('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if size >= factor:
      return f'{size / factor:.3g} {unit}'
  return f'{size} bytes'
