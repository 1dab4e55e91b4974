"""One short run of train.py for every family, made once for all tests that look at one."""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from tests import runs

STEPS = 60
# Where the runs of this session lie; the first process of it sets this, and all share them.
SHARED = 'ATELIER_TEST_RUNS'


class ShortRun(NamedTuple):
  """A run.

  Attributes:
    flags: of train.py; its length, intervals and folder are added.
    noise: what it draws from keys; '' for nothing.
  """

  flags: tuple[str, ...]
  noise: str


_SMALL_BERT = (
  '--config=configs/bert.py',
  *runs.SMALL_TEXT,
  *(flag for flag in runs.SMALL_GPT if flag.startswith('--config.modules')),
)
RUNS = {
  'gan': ShortRun(runs.SMALL_DCGAN, 'latents'),
  'vae': ShortRun(runs.SMALL_VAE, 'latents and binary pixels'),
  'vqvae': ShortRun(runs.SMALL_VQVAE, 'restarted codes'),
  'classifier': ShortRun(runs.SMALL_MLP, ''),
  'causal_lm': ShortRun(runs.SMALL_GPT, ''),
  'masked_lm': ShortRun(_SMALL_BERT, 'masks'),
}


def arguments(flags: tuple[str, ...], workdir: Path, *more: str) -> tuple[str, ...]:
  """The flags of a run in `workdir`, with the length and the intervals of all short runs."""
  intervals = runs.every(log=7, checkpoint=10, other=30)
  return (*flags, *intervals, f'--workdir={workdir}', f'--config.train.steps={STEPS}', *more)


def folder(family: str) -> Path:
  """The family's run, trained by whoever asks first; to be read, not trained further."""
  place = Path(os.environ[SHARED]) / family
  place.mkdir(parents=True, exist_ok=True)
  done = place / 'done'
  with open(place / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not done.exists():
      runs.train(*arguments(RUNS[family].flags, place / 'run'))
      done.touch()
  return place / 'run'


def last_metrics(family: str) -> dict[str, float]:
  """What the family's run logged at its last step, evaluation included, without the clock's."""
  last = runs.metrics(folder(family))[-1]
  assert last.pop('step') == STEPS
  return {k: v for k, v in last.items() if k not in ('wall_time', 'steps_per_second')}
