"""Weights & Biases: one of its runs for each of ours, which goes on where ours is resumed."""

import html
import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb

import files
from engine.tracking import Tracked, Tracker

# The id of the run of Weights & Biases, in the folder of ours.
ID = 'wandb_id.txt'
PROJECT = 'atelier'


class Wandb(Tracker):
  """Sends figures, samples and the config to a run of Weights & Biases.

  It is offline unless the environment says otherwise by WANDB_MODE or WANDB_API_KEY, and never asks
  for a login. WANDB_PROJECT, WANDB_ENTITY and the like count as everywhere. Its files are in the
  folder `wandb` of the run; of a run in a bucket they are where WANDB_DIR says.
  """

  def __init__(self, tracked: Tracked):
    local = str(tracked.workdir) if files.is_local(tracked.workdir) else None
    self._mode = _mode()
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT') or PROJECT,
      name=os.environ.get('WANDB_NAME') or tracked.workdir.name,
      id=_run_id(tracked.workdir),
      resume='allow',
      dir=local,
      mode=self._mode,
      config={name: _plain(value) for name, value in tracked.options.items()},
      reinit='create_new',
      # Our terminal stays ours.
      settings=wandb.Settings(console='off', silent=True),
    )

  @property
  def place(self) -> str:
    if self._mode != 'offline':
      return self._run.url or ''
    folder = os.path.dirname(self._run.dir)
    return f'offline in {folder}; to send it: wandb sync {folder}'

  def figures(self, step: int, figures: Mapping[str, float]) -> None:
    self._run.log(dict(figures), step=step)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._run.log({name: wandb.Image(image)}, step=step)

  def text(self, step: int, name: str, text: str) -> None:
    page = wandb.Html(f'<pre>{html.escape(text)}</pre>', data_is_not_path=True)
    self._run.log({name: page}, step=step)

  def close(self) -> None:
    self._run.finish()


def _mode() -> str:
  """The value of WANDB_MODE; if unset, "online" with WANDB_API_KEY and "offline" without it."""
  has_key = bool(os.environ.get('WANDB_API_KEY'))
  mode = os.environ.get('WANDB_MODE') or ('online' if has_key else 'offline')
  if mode != 'online' or has_key:
    return mode
  # There may be a key in ~/.netrc; where there is none, `init` would ask for it.
  return mode if wandb.login(prompt=False) else 'offline'


def _run_id(workdir: files.Path) -> str:
  """The id that is kept in a run's folder, made by its first process."""
  path = workdir / ID
  if not path.exists():
    files.write_text(path, secrets.token_hex(8) + '\n')
  return path.read_text().strip()


def _plain(value: Any) -> Any:
  """Lists for tuples, which JSON has not."""
  return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
