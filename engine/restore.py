"""Opening a finished or running run again, on whatever devices are here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from data.examples import Examples
from data.section import check_features, open_testing
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.declarations import check_config
from engine.lanes import take_lane
from engine.memory import check_memory, weights_need
from engine.session import Session, open_session
from engine.sharding import AXES, path_name
from engine.state import Weights, averaged_variables, weights
from errors import UserError
from objectives.base import Variables
from options import Option

SEED = Option(int, 0, 'Seed of what is random.', low=0, below=2**32)


class Placement(NamedTuple):
  """Where the parameters of a restored run are put.

  Attributes:
    mesh: sizes of mesh axes; None for the run's own mesh where it fits the devices here, else all
      devices along `data`.
    sharding: rules as in `config.sharding`; None for the run's own.
  """

  mesh: Mapping[str, int] | None = None
  sharding: Sequence[Any] | None = None


# The run's own mesh where it fits, and its own rules.
DEFAULT = Placement()


class Restored(NamedTuple):
  """A run opened again, without its optimizers.

  Attributes:
    session: of the run's config, on a mesh of the devices here.
    weights: of the chosen checkpoint, of all lanes, placed by the session's shardings.
    step: that checkpoint's.
  """

  session: Session
  weights: Weights
  step: int

  def variables(self, lane: int = 0, average: str = '') -> Variables:
    """Returns `{module: variables}` of one lane.

    Args:
      lane: which.
      average: name of an average, 'none' for the raw parameters, '' for each module's first.
    """
    held = take_lane(self.weights, lane, self.session.lanes.number)
    return averaged_variables(held, self.session.averages, average)

  def key(self, lane: int = 0) -> jax.Array:
    """Returns the PRNG key that the lane was trained with."""
    return jax.random.key(int(self.session.lanes.seeds[lane]))


def restore_run(
  workdir: str, checkpoint: str, lane: int = 0, placement: Placement = DEFAULT
) -> Restored:
  """Restores a run; needs nothing but its folder.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', a step, or '' for the best one where `config.train.patience`
      waited for it, else the latest.
    lane: whose best checkpoint 'best' is.
    placement: where the parameters go.

  Raises:
    UserError: no run, no such checkpoint or lane, it is damaged, or it holds NaN or inf.
  """
  config, spec = stored_config(workdir), run.read_spec(workdir)
  run.warn_of_edits(workdir)
  session = open_session(_placed(config, placement), spec)
  check_lane(session, lane, workdir)
  checkpoints = Checkpoints(
    workdir, **to_plain(config.checkpoint), lanes=session.lanes.number, read_only=True
  )
  if not checkpoints.steps():
    raise UserError(f'{workdir} has no checkpoint yet; train until the first one is saved')
  check_memory(weights_need(session), workdir)
  checkpoint = checkpoint or _default(checkpoints, session.train.patience, lane)
  found = checkpoints.restore_weights(
    weights(session.abstract), _chosen(checkpoints, checkpoint, lane)
  )
  if found is None:
    raise UserError(f'every checkpoint of {workdir} is damaged; train again in another --workdir')
  held, meta = found
  run.check_origin(workdir, meta, config)
  _check_finite(held, f'checkpoint {int(meta["step"])} of {workdir}')
  return Restored(session, held, int(meta['step']))


def restore_lanes(
  first: Restored, lanes: Sequence[int], workdir: str, checkpoint: str, placement: Placement
) -> Iterator[tuple[int, Restored]]:
  """Yields each lane and the run as it is restored for it.

  It is restored anew only where each lane has its own best checkpoint.

  Args:
    first: restored for the first of the lanes.
    lanes: which.
    workdir, checkpoint, placement: as for `restore_run`.
  """
  by_lane = checkpoint == 'best' or (not checkpoint and first.session.train.patience)
  for lane in lanes:
    own = by_lane and lane != lanes[0]
    yield lane, restore_run(workdir, checkpoint, lane, placement) if own else first


def stored_config(workdir: str) -> ConfigDict:
  """Returns the config of a run, in a form that the rest of the code can rely on.

  Raises:
    UserError: the folder is no run, or its config is damaged.
  """
  # Lists of JSON become tuples again, which flags can set.
  config = ConfigDict(to_plain(run.read_config(workdir)))
  try:
    check_config(config)
  except UserError as error:
    raise run.damaged_config(workdir, str(error)) from error
  return config


def _check_finite(held: Weights, checkpoint: str) -> None:
  """Raises UserError naming the first of the weights that has a NaN or infinite value."""
  named = jax.tree_util.tree_leaves_with_path(held)
  floats = [(path, leaf) for path, leaf in named if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  finite = jax.device_get(_are_finite([leaf for _, leaf in floats]))
  bad = [path_name(path) for (path, _), each in zip(floats, finite, strict=True) if not each]
  if bad:
    raise UserError(
      f'{checkpoint} has NaN or infinite values in {len(bad)} of {len(floats)} arrays, the first '
      f'{bad[0]}; choose an earlier --checkpoint, or train again with a lower learning rate'
    )


@jax.jit
def _are_finite(leaves: Sequence[jax.Array]) -> list[jax.Array]:
  return [jnp.isfinite(leaf).all() for leaf in leaves]


def check_lane(session: Session, lane: int, workdir: str) -> None:
  """Raises UserError where the run has no such lane."""
  number = session.lanes.number
  if number == 1 and lane:
    raise UserError(f'--lane={lane}: {workdir} has one lane, number 0; leave --lane out')
  if not 0 <= lane < number:
    raise UserError(
      f'--lane={lane} is none of the {number} lanes of {workdir}; they go from 0 to {number - 1}'
    )


def _placed(config: ConfigDict, placement: Placement) -> ConfigDict:
  """The config with a mesh for the devices here; no batch of the training is made."""
  config = config.copy_and_resolve_references()
  if placement.mesh is not None:
    config.mesh = {axis: placement.mesh.get(axis, 1) for axis in AXES}
  elif not _fits(to_plain(config.mesh), jax.device_count()):
    config.mesh = {**dict.fromkeys(AXES, 1), 'data': -1}
  if placement.sharding is not None:
    config.sharding = placement.sharding
  config.data.batch_size, config.train.accumulate = jax.device_count(), 1
  # No optimizer is restored, so that these devices need no memory for one.
  for section in config.optimizer.values():
    section.offload = False
  return config


def _fits(mesh: Mapping[str, int], devices: int) -> bool:
  given = math.prod(size for size in mesh.values() if size != -1)
  return devices % given == 0 if -1 in mesh.values() else devices == given


def _default(checkpoints: Checkpoints, patience: int, lane: int) -> str:
  return 'best' if patience and checkpoints.best_step(lane) is not None else 'latest'


def _chosen(checkpoints: Checkpoints, which: str, lane: int) -> int | None:
  if which == 'latest':
    return None
  if which == 'best':
    step = checkpoints.best_step(lane)
    if step is None:
      raise UserError('no checkpoint of this run was ranked; use --checkpoint=latest')
    return step
  steps = checkpoints.steps()
  if which not in map(str, steps):
    known = ', '.join(map(str, steps))
    raise UserError(f'--checkpoint={which} must be latest, best or one of the steps saved: {known}')
  return int(which)


def open_split(session: Session, split: str) -> Examples:
  """Opens a split of the run's data set, by default (`''`) the one that training evaluated on.

  Raises:
    UserError: the split is unavailable, or its features differ from the training data.
  """
  source = open_testing(session.data, session.spec, split)
  check_features(source, session.spec)
  return source
