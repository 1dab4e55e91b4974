"""The section `config.train`: how long and how a run trains."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from engine import runtime
from engine.build import call, to_plain
from errors import UserError
from options import option

PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Train:
  """The options of `config.train`."""

  steps: int = option('Length of the run, unless `epochs` ends it sooner.', low=1)
  epochs: float = option('Passes over the training split; 0 leaves the length to `steps`.', low=0)
  seed: int = option('Seed of everything random; lane i has this plus i.', low=0, below=2**32)
  log_every: int = option('Steps between lines of metrics.jsonl.', low=1)
  sample_every: int = option('Steps between samples for people to look at.', low=1)
  samples: int = option('Samples drawn then.', low=1, high=10_000)
  dispatch: int = option('Most steps handed to the device at once.', low=1, high=100_000)
  precision: str = option(
    'Type of the computation; parameters stay float32.', choices=tuple(PRECISIONS)
  )
  accumulate: int = option('Microbatches an update is cut into, to need less memory.', low=1)
  gradient: Mapping[str, Any] = option(
    'How the gradient of an update is made; engine/gradients.py.'
  )
  patience: int = option(
    'Evaluations without a gain in config.checkpoint.best after which the run ends; 0 never ends '
    'it early.',
    low=0,
  )
  minimum_gain: float = option('The smallest improvement that counts as a gain.', low=0)
  latency_hiding: bool = option(
    'Whether GPUs or TPUs are told to exchange data while they compute: the compiler options of '
    '`LATENCY_HIDING` in engine/runtime.py. On a CPU it changes nothing.',
    default=False,
  )
  determinism: str = option(
    'What a GPU repeats bit for bit: `default` need not repeat anything; `kernels` uses kernels '
    'that give the same result at every call, of which the fastest are chosen while compiling, so '
    'that another machine, or one without the cache of compiled programs, may choose others; '
    '`full` chooses without timing them, so that every process on such a GPU computes the same. '
    'CPUs and TPUs repeat every bit in any case.',
    choices=tuple(runtime.DETERMINISM),
    default='default',
  )


def train_options(config: ConfigDict) -> Train:
  """Returns the checked section.

  Raises:
    UserError: an unknown or missing option, or a value out of range.
  """
  options = call(Train, to_plain(config.train), 'config.train')
  if options.patience and not config.checkpoint.best:
    raise UserError(
      f'config.train.patience={options.patience} waits for a gain in config.checkpoint.best, which '
      'is empty; name a figure there, e.g. test/loss'
    )
  if options.minimum_gain and not options.patience:
    raise UserError(
      f'config.train.minimum_gain={options.minimum_gain} has no effect without '
      'config.train.patience; give the evaluations to wait for a gain there, or set it to 0'
    )
  return options


def run_length(train: Train, examples: int, per_step: int) -> int:
  """Returns the steps of a run over a split of `examples`, `per_step` of them in each step."""
  if not train.epochs:
    return train.steps
  return min(train.steps, max(1, round(train.epochs * examples / per_step)))
