"""The first steps of configs on a mesh, and the bytes that a device holds for them; also a script.

python -m tests.engine.mesh_steps OUT.json '{"data": 2, "fsdp": 2, "tensor": 2}' CONFIG …
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data import placement
from data.spec import Spec
from engine.program import make_program
from engine.session import open_session
from engine.sharding import path_name
from tests.golden import tiny

STEPS, ROWS = 3, 16
# Large enough for every kernel to be split eight ways.
_TEXT = dict(width=64, layers=2, heads=8, hidden=128, context=16, embedding=64)


class Leaf(NamedTuple):
  """An array of the state as the compiled program takes it.

  Attributes:
    shape: of the whole array.
    whole: its bytes.
    here: its bytes on one device.
  """

  shape: tuple[int, ...]
  whole: int
  here: int


class Steps(NamedTuple):
  """The first steps of a config.

  Attributes:
    losses: of each player, in the order they act, at each of `STEPS` steps.
    statistics: the running statistics of batch norms after the first step.
    leaves: the parameters, optimizer state and averages by their paths, `params/…`, `opt_state/…`
      and `ema/…`.
    arguments: bytes on one device of all arguments of the compiled program, as XLA says.
    others: bytes on one device of those that are none of `leaves`.
  """

  losses: Mapping[str, list[float]]
  statistics: Mapping[str, list[float]]
  leaves: Mapping[str, Leaf]
  arguments: int
  others: int


def first_steps(name: str, mesh: Mapping[str, int]) -> Steps:
  """Trains a config for `STEPS` steps on batches of noise."""
  config = tiny.config_for(name)
  description = _changed(config, name)
  config.mesh.update(mesh)
  opened = open_session(config, description)
  feed = _Placed(opened.mesh)
  program = make_program(opened, feed)
  batches = [tiny.batch_of(description, opened.per_step, step) for step in range(STEPS)]
  taken = placement.replicate(jax.tree.map(lambda *rows: np.stack(rows), *batches), opened.mesh)
  state, ok, active = opened.init(), np.bool_(True), np.ones(1, bool)

  def arguments(first: int, count: int) -> Any:
    numbers = np.int32(first), ok, np.int32(count), active
    begin, *others = placement.replicate(numbers, opened.mesh)
    return others[0], (begin, taken), *others[1:]

  compiled = program.dispatch.lower(state, *arguments(0, 1)).compile()
  leaves, others = _held((state, *arguments(0, 1)), compiled.input_shardings[0])
  state, ok_after, first = compiled(state, *arguments(0, 1))
  statistics = {
    path_name(path): np.asarray(leaf).tolist()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.mutable)
    if 'batch_stats' in path_name(path)
  }
  _, ok_at_last, rest = compiled(state, *arguments(1, STEPS - 1))
  assert ok_after and ok_at_last
  rows = np.concatenate([np.asarray(first)[0, :1], np.asarray(rest)[0, : STEPS - 1]])
  losses = {
    player.name: rows[:, program.names.index(f'{player.name}/loss'), 0].tolist()
    for player in opened.objective.players
  }
  size = compiled.memory_analysis().argument_size_in_bytes
  return Steps(losses, statistics, leaves, size, others)


def _changed(config: ConfigDict, name: str) -> Spec:
  """Makes a config comparable between meshes, and returns the looks of its data."""
  config.data.batch_size = ROWS
  # Products of half precision are rounded otherwise where they are sums of several devices.
  config.train.precision = 'float32'
  for section in config.optimizer.values():
    section.schedule.warmup = 0  # it starts at a rate of 0
    # Adam moves by its rate what has a gradient of rounding errors alone.
    section.learning_rate = min(section.learning_rate, 3e-4)
  if name in tiny.TEXT:
    model = config.modules.model
    model.update({key: value for key, value in _TEXT.items() if key in model})
    config.data.text.length = _TEXT['context']
  data = tiny.TEXT.get(name, tiny.ARGUMENTS.get(name, ('mnist5k',))[0])
  return tiny.spec_for(name, data, config)


class _Placed(NamedTuple):
  """A feed of batches that lie ready: `taken` is (the first step, {name: [steps, B, …]}).

  They are split over the mesh as those of the real feeds are.
  """

  mesh: Mesh

  def batch(self, taken: Any, i: jax.Array) -> dict[str, jax.Array]:
    first, batches = taken
    batch = {name: rows[first + i] for name, rows in batches.items()}
    return placement.split_batch(batch, self.mesh)


def _held(arguments: Any, shardings: Any) -> tuple[dict[str, Leaf], int]:
  """The leaves of the state, and bytes on one device of all else that a program takes."""
  leaves, others = {}, 0
  named = jax.tree_util.tree_leaves_with_path(arguments)
  placed = jax.tree.leaves(shardings, is_leaf=lambda each: each is None)
  for (path, leaf), sharding in zip(named, placed, strict=True):
    if sharding is None:  # the program does not read it
      continue
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)  # it is the same on every device
      others += leaf.nbytes
      continue
    here = math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    place = path_name(path).removeprefix('0/')
    if place.split('/')[0] in ('params', 'opt_state', 'ema'):
      leaves[place] = Leaf(leaf.shape, leaf.nbytes, here)
    else:
      others += here
  return leaves, others


def write(out: str, mesh: str, *names: str) -> None:
  """Writes `{name: steps}` of configs on a mesh of all devices here."""
  found = {name: first_steps(name, json.loads(mesh)) for name in names}
  Path(out).write_text(json.dumps(found))


def read(out: Path) -> dict[str, Steps]:
  """Reads what `write` has written."""

  def steps(losses: Any, statistics: Any, leaves: Any, *sizes: int) -> Steps:
    return Steps(losses, statistics, {path: Leaf(*leaf) for path, leaf in leaves.items()}, *sizes)

  found = json.loads(out.read_text())
  return {name: steps(*each) for name, each in found.items()}


if __name__ == '__main__':
  write(*sys.argv[1:])
