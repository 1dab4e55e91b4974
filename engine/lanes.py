"""Lanes: several trainings of one config side by side, one state stacked over all of them.

Lanes are seeds (`config.seeds`), or the folds of a cross-validation. A lane starts, draws and ends
as the run of its seed or fold alone does, up to the rounding of another program.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.selection import fold_bounds
from engine.state import State, Weights
from errors import UserError


class Lanes(NamedTuple):
  """What differs between the lanes of a run.

  Attributes:
    labels: of each lane, for logs and files, e.g. 'seed_3'.
    seeds: uint32 [L], of the parameters, the noise and the order of examples.
    held_out: int32 [L, 2], the first example of the fold that a lane leaves out of its training and
      how many that fold has; None where the lanes train on the same examples.
  """

  labels: tuple[str, ...]
  seeds: np.ndarray
  held_out: np.ndarray | None = None

  @property
  def number(self) -> int:
    return len(self.labels)

  @property
  def inputs(self) -> dict[str, np.ndarray]:
    """What a feed is given for each lane, stacked over them."""
    given = {'seed': self.seeds, 'held_out': self.held_out}
    return {name: value for name, value in given.items() if value is not None}


def lanes_of_seeds(seed: int, number: int) -> Lanes:
  """Returns `number` lanes with the seeds `seed`, `seed + 1`, …

  Raises:
    UserError: a seed past 2³² − 1.
  """
  if seed + number > 2**32:
    raise UserError(
      f'config.seeds={number} lanes from config.train.seed={seed} on go past {2**32 - 1}; choose a '
      'smaller seed'
    )
  seeds = np.arange(seed, seed + number, dtype=np.uint32)
  return Lanes(tuple(f'seed_{value}' for value in seeds), seeds)


def lanes_of_folds(seed: int, folds: int, examples: int | None) -> Lanes:
  """Returns a lane for each fold, all with one seed.

  Args:
    seed: of all lanes.
    folds: how many there are.
    examples: how many are cut into folds; None after the training, when that no longer matters.
  """
  labels = tuple(f'fold_{fold}' for fold in range(folds))
  seeds = np.full(folds, seed, np.uint32)
  if examples is None:
    return Lanes(labels, seeds)
  ends = [fold_bounds(fold, folds, examples) for fold in range(folds)]
  bounds = np.array([(start, stop - start) for start, stop in ends], np.int32)
  return Lanes(labels, seeds, bounds)


def check_lanes(lanes: Lanes, mesh: Mesh) -> None:
  """Raises UserError unless the lanes can be shared out evenly over the mesh's axis `lane`."""
  ways = mesh.shape['lane']
  if lanes.number % ways:
    raise UserError(
      f'config.mesh.lane={ways} cannot share out {lanes.number} lanes evenly; make '
      f'--config.seeds a multiple of {ways}'
    )


def lane_axes(state: State) -> State:
  """Returns the axis of lanes of every leaf as `jax.vmap` takes it: 0, and None for the step."""
  return jax.tree.map(lambda _: 0, state).replace(step=None)


def stack_abstract(abstract: State, number: int, mesh: Mesh) -> State:
  """Returns the shapes and shardings of `number` lanes, given those of one."""

  def stacked(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = NamedSharding(mesh, PartitionSpec('lane', *leaf.sharding.spec))
    return jax.ShapeDtypeStruct((number, *leaf.shape), leaf.dtype, sharding=sharding)

  return jax.tree.map(stacked, abstract).replace(step=abstract.step)


def take_lane(weights: Weights, lane: int, number: int) -> Weights:
  """Returns the weights of one lane of the stacked weights of `number` lanes."""
  return weights if number == 1 else jax.tree.map(lambda leaf: leaf[lane], weights)
