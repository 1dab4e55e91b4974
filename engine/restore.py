"""A finished or running run, opened again on whatever devices are here."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from data.source import Examples, Spec
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.session import Session, open_session, open_testing
from engine.state import State
from errors import UserError


class Restored(NamedTuple):
  """What `restore_run` returns.

  Attributes:
    session: of the run's config, on a mesh of the devices here.
    state: of the chosen checkpoint, whole on every device.
    step: that checkpoint's.
  """

  session: Session
  state: State
  step: int


def restore_run(workdir: str, checkpoint: str) -> Restored:
  """Restores a run; needs nothing but its folder.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', a step, or '' for the best one where `config.train.patience`
      waited for it, else the latest.

  Raises:
    UserError: no run, no such checkpoint, or it is damaged.
  """
  config = ConfigDict(run.read_config(workdir))
  spec = Spec.from_json(run.read_description(workdir)['data'])
  spec = spec._replace(tokenizer=run.read_tokenizer(workdir))
  # Wherever it was trained, it is used on what is here; no batch of the training is made.
  config.mesh, config.sharding = {'data': -1, 'fsdp': 1, 'tensor': 1}, ()
  config.data.batch_size, config.train.accumulate = jax.device_count(), 1
  session = open_session(config, spec)
  checkpoints = Checkpoints(workdir, **to_plain(config.checkpoint), read_only=True)
  if not checkpoints.steps():
    raise UserError(f'{workdir} has no checkpoint yet; train until the first one is saved')
  checkpoint = checkpoint or _usual(checkpoints, session.train.patience)
  found = checkpoints.restore(session.abstract, _chosen(checkpoints, checkpoint))
  if found is None:
    raise UserError(f'every checkpoint of {workdir} is damaged; train again in another --workdir')
  state, meta = found
  return Restored(session, state, int(meta['step']))


def _usual(checkpoints: Checkpoints, patience: int) -> str:
  return 'best' if patience and checkpoints.best_step() is not None else 'latest'


def _chosen(checkpoints: Checkpoints, which: str) -> int | None:
  if which == 'latest':
    return None
  if which == 'best':
    step = checkpoints.best_step()
    if step is None:
      raise UserError('no checkpoint of this run was ranked; use --checkpoint=latest')
    return step
  if not which.isdigit():
    raise UserError(f'--checkpoint={which} must be latest, best or one of {checkpoints.steps()}')
  return int(which)


def open_split(session: Session, split: str) -> Examples:
  """A split of the run's data set, by default (`''`) the one that training evaluated on.

  Raises:
    UserError: it is not to be had, or its examples look otherwise than those trained on.
  """
  source = open_testing(session.data, session.spec.tokenizer, split)
  if source.spec.features != session.spec.features:
    raise UserError(
      f'{source.spec.name} {source.spec.split} holds {source.spec.features}, but the run was '
      f'trained on {session.spec.features}; point TFDS_DATA_DIR at the data it was trained on'
    )
  return source


def check_seed(seed: int) -> None:
  """Raises UserError unless the seed fits a PRNG key."""
  if not 0 <= seed < 2**32:
    raise UserError(f'--seed={seed} must be from 0 to {2**32 - 1}')


def make_folder(path: Path) -> None:
  """Makes the folder that `path` is to be written in."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'cannot write {path} ({error.strerror}); choose another --out') from error
