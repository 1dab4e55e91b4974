"""Drawing samples from a finished or running run."""

import os
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from data.source import Spec
from engine import pictures, run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.session import open_session
from engine.state import State, stream_key, variables_for_sampling
from errors import UserError
from objectives.base import Objective

# Drawn per device call: bounds the memory whatever --num is.
CHUNK = 256


def draw(workdir: str, checkpoint: str, num: int, seed: int, out: str) -> None:
  """Restores a run and writes `num` samples to `out`, whose ending picks the form.

  Raises:
    UserError: no run, no such checkpoint, an ending other than .png and .npz, a bad number.
  """
  ending = Path(out).suffix
  if ending not in ('.png', '.npz'):
    raise UserError(f'--out={out} must end in .png (a grid) or .npz (arrays)')
  if num < 1:
    raise UserError(f'--num={num} must be at least 1')
  if not 0 <= seed < 2**32:
    raise UserError(f'--seed={seed} must be from 0 to {2**32 - 1}')
  objective, state, step = restore_run(workdir, checkpoint)
  images = sample_images(objective, state, num, seed)
  try:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    if ending == '.png':
      pictures.write_png(Path(out), pictures.enlarge(pictures.grid(images)))
    else:
      _write_npz(Path(out), image=images, step=np.int64(step), seed=np.int64(seed))
  except OSError as error:
    raise UserError(f'cannot write {out} ({error.strerror}); choose another --out') from error
  print(f'{num} samples of step {step} of {workdir}: {out}')


def restore_run(workdir: str, checkpoint: str) -> tuple[Objective, State, int]:
  """Returns (objective, state, step) of a run; needs nothing but its folder.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', or a step.
  """
  config = ConfigDict(run.read_config(workdir))
  spec = Spec.from_json(run.read_description(workdir)['data'])
  # Wherever it was trained, it is drawn on what is here.
  config.mesh, config.sharding = {'data': 1, 'fsdp': 1, 'tensor': -1}, ()
  session = open_session(config, spec)
  checkpoints = Checkpoints(workdir, **to_plain(config.checkpoint), read_only=True)
  if not checkpoints.steps():
    raise UserError(f'{workdir} has no checkpoint yet; train until the first one is saved')
  found = checkpoints.restore(session.abstract, _chosen(checkpoints, checkpoint))
  if found is None:
    raise UserError(f'every checkpoint of {workdir} is damaged; train again in another --workdir')
  state, meta = found
  return session.objective, state, int(meta['step'])


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


def sample_images(objective: Objective, state: State, num: int, seed: int) -> np.ndarray:
  """Images float32 [num, H, W, C] in [0, 1]; the same for a seed whatever `num` is."""
  variables = variables_for_sampling(state)
  size = min(num, CHUNK)
  sample = jax.jit(lambda variables, key: objective.sample(variables, key, size))
  key = stream_key(jax.random.key(seed), 'sample')
  chunks = [
    np.asarray(sample(variables, jax.random.fold_in(key, i))) for i in range(-(-num // size))
  ]
  return np.concatenate(chunks)[:num]


def _write_npz(path: Path, **arrays: np.ndarray) -> None:
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  with open(part, 'wb') as handle:
    np.savez_compressed(handle, **arrays)
  part.replace(path)
