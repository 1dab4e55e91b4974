"""Plans of one run on several meshes: the smallest that holds it, and a table of all."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from engine.planning.estimate import Plan
from errors import UserError

# Of a device's memory, what a program can have: the rest is the runtime's.
USABLE = 0.95

Mesh = Mapping[str, int]


class Tried(NamedTuple):
  """One mesh of a search.

  Attributes:
    mesh: devices along each axis.
    plan: of the run on it; None where there is none.
    reason: why not, as a sentence.
  """

  mesh: Mesh
  plan: Plan | None
  reason: str = ''


def fits(plan: Plan, memory: float) -> bool:
  """Whether the peak of a plan fits in a device of `memory` bytes."""
  return plan.peak <= USABLE * memory


def growing(mesh: Mesh, axis: str, most: int) -> Iterator[dict[str, int]]:
  """Yields a mesh with 1, 2, 4, … devices along an axis, up to `most` in all."""
  others = math.prod(size for name, size in mesh.items() if name != axis)
  size = 1
  while size * others <= most:
    yield {**mesh, axis: size}
    size *= 2


def splits(mesh: Mesh, devices: int) -> Iterator[dict[str, int]]:
  """Yields a mesh for every split of a number of devices over `data` and `fsdp`, by powers of two.

  The other axes stay as they are.
  """
  others = math.prod(size for name, size in mesh.items() if name not in ('data', 'fsdp'))
  if devices % others:
    raise UserError(
      f'--sweep={devices} devices cannot be split: the other axes of the mesh take {others}; make '
      'it a multiple'
    )
  fsdp = 1
  while fsdp <= devices // others:
    if devices // others % fsdp == 0:
      yield {**mesh, 'data': devices // others // fsdp, 'fsdp': fsdp}
    fsdp *= 2


def try_meshes(
  meshes: Sequence[Mesh], plan: Callable[[Mesh], Plan], stop: Callable[[Plan], bool]
) -> Iterator[Tried]:
  """Yields the plan of each mesh in turn, up to the first for which `stop` returns True."""
  for mesh in meshes:
    try:
      found = plan(mesh)
    except UserError as error:
      yield Tried(mesh, None, str(error))
      continue
    yield Tried(mesh, found)
    if stop(found):
      return
