"""Samples and pictures of a run: what is asked for, and the command that makes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from commands import export_dataset, generate_text, render_samples
from engine.averages import chosen_averages
from engine.memory import memory_errors
from engine.restore import DEFAULT, SEED, Placement, Restored, restore_run
from errors import UserError, choose
from objectives.base import Picture, Variables
from options import Option, complete

# The kind that samples from the model alone.
PRIOR = 'prior'
# Most of anything that one command makes: past it a slip of the keyboard is likelier.
NUM = Option(int, None, 'How many.', low=1, high=10_000_000)


class Request(NamedTuple):
  """The samples or the picture to make, and the run to make them with.

  Attributes:
    workdir: the run's folder.
    kind: 'prior' for samples, or a kind of picture of the objective.
    num: how many of what the kind counts; None for its own default.
    out: where it goes; None for WORKDIR/KIND.png, and of texts for the terminal alone.
    split: where test images come from; '' for the one that training evaluated on.
    seed: of the samples, and of which test images are taken; None for 0, refused where nothing that
      is made depends on it.
    checkpoint: see `engine.restore.restore_run`.
    lane: of a run of several.
    average: of the parameters; see `engine.averages.chosen_averages`.
    options: of the sampler, those that are given.
    placement: where the parameters go.
  """

  workdir: str
  kind: str = PRIOR
  num: int | None = None
  out: str | None = None
  split: str = ''
  seed: int | None = None
  checkpoint: str = ''
  lane: int = 0
  average: str = ''
  options: Mapping[str, Any] = {}
  placement: Placement = DEFAULT


class Opened(NamedTuple):
  """A run that is opened for a request, with checked options.

  Attributes:
    request: what is to be made.
    restored: the run.
    variables: of the requested lane and average.
    options: a value for every option of the sampler.
  """

  request: Request
  restored: Restored
  variables: Variables
  options: Mapping[str, Any]

  @property
  def seed(self) -> int:
    """The seed of what is made."""
    return self.request.seed or 0


@memory_errors('a smaller --num, or a device with more memory')
def sample_run(request: Request) -> None:
  """Makes what is requested of a run, and says where it is.

  Raises:
    UserError: no run, no such checkpoint, lane, average or kind, an option that is unknown, out of
      range or without effect, or `out` cannot be written.
  """
  NUM.check(request.num, '--num')
  if request.out == '':
    raise UserError('--out= names no file; give one, or leave --out out')
  if request.seed is not None:
    SEED.check(request.seed, '--seed')
  restored = restore_run(request.workdir, request.checkpoint, request.lane, request.placement)
  sampler = restored.session.objective.sampler
  pictures = restored.session.objective.pictures
  kinds = {**({} if sampler is None else {PRIOR: None}), **dict.fromkeys(pictures)}
  if not kinds:
    raise UserError(f'{request.workdir} has nothing to sample or render; use evaluate.py')
  if request.kind == PRIOR and PRIOR not in kinds:
    raise UserError(
      f'{request.workdir} is not sampled from, which --kind={PRIOR} would do; choose --kind from: '
      f'{", ".join(kinds)}'
    )
  choose(kinds, request.kind, '--kind')
  _refuse_seed_without_effect(request, pictures)
  chosen_averages(restored.session.averages, request.average)
  lanes = restored.session.lanes
  if lanes.number > 1:
    print(f'lane     {request.lane} of {lanes.number}: {lanes.labels[request.lane]}', flush=True)
  variables = restored.variables(request.lane, request.average)
  if request.kind != PRIOR:
    _refuse_sampler_options(request)
    render_samples.render_picture(Opened(request, restored, variables, {}))
    return
  if request.split:
    raise UserError(f'--split={request.split} has no effect with --kind={PRIOR}; leave it out')
  options = complete(sampler.options, request.options, f'the sampler of {request.workdir}', '--')
  opened = Opened(request, restored, variables, options)
  commands = {'image': _images, 'tokens': generate_text.generate_text}
  commands[sampler.feature](opened)


def _refuse_seed_without_effect(request: Request, pictures: Mapping[str, Picture]) -> None:
  if request.seed is None:
    return
  if request.kind in pictures and not pictures[request.kind].is_random:
    raise UserError(
      f'--seed={request.seed} has no effect with --kind={request.kind}, which draws nothing; leave '
      'it out'
    )


def _images(opened: Opened) -> None:
  """Images as a picture or arrays, or where `out` has no ending as a data set."""
  out = opened.request.out
  is_data_set = out is not None and not Path(out).suffix
  (export_dataset.export_dataset if is_data_set else render_samples.render_samples)(opened)


def _refuse_sampler_options(request: Request) -> None:
  if request.options:
    name = next(iter(request.options))
    raise UserError(f'--{name} has no effect with --kind={request.kind}; leave it out')
