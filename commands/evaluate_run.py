"""The evaluators on a finished run: a table for the person, metrics.json for everyone else."""

import contextlib
import datetime
import io
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import files
from commands import cli
from commands.machine import machine
from commands.run_records import read_fingerprint
from data.own.names import own_files, split_names
from data.section import open_training
from engine import run, summaries
from engine.averages import chosen_averages
from engine.build import to_plain
from engine.code_version import code_version
from engine.declarations import check_section
from engine.evaluation import Evaluators, open_lane_evaluators
from engine.evaluators.base import Figure, Results
from engine.lanes import take_lane
from engine.memory import memory_errors
from engine.pictures import write_png
from engine.report import Counting
from engine.restore import (
  DEFAULT,
  SEED,
  Placement,
  Restored,
  restore_lanes,
  restore_run,
)
from engine.session import Session
from errors import UserError, choose

# The figures of so many lanes are shown on the terminal one by one.
_MOST_SHOWN = 8


class Request(NamedTuple):
  """The run to evaluate, and the options of `evaluate.py`.

  Attributes:
    workdir: the run's folder.
    out: a .json for the figures.
    checkpoint: 'latest', 'best', a step, or '' as in `engine.restore.restore_run`; 'best' is each
      lane's own.
    split: a TFDS split of the data set that is tested on, in place of those that evaluators of
      examples name; '' for their own.
    seed: of the noise; None for the run's own, which gives the figures that training logged.
    average: of the parameters, for all evaluators; '' for their own.
    lane: the only lane to evaluate; None for all.
    only: the evaluators to run; none for all.
    evaluators: the section `config.evaluators`; None for the run's own.
    placement: where the parameters go.
  """

  workdir: str
  out: str
  checkpoint: str = ''
  split: str = ''
  seed: int | None = None
  average: str = ''
  lane: int | None = None
  only: Sequence[str] = ()
  evaluators: ConfigDict | None = None
  placement: Placement = DEFAULT


class Evaluated(NamedTuple):
  """One lane that was evaluated.

  Attributes:
    lane: which.
    label: its name.
    seed: that it was trained with.
    step: of its checkpoint.
    results: of all evaluators.
  """

  lane: int
  label: str
  seed: int
  step: int
  results: Results


class Opened(NamedTuple):
  """A run that is opened for a request; nothing is evaluated yet.

  Attributes:
    request: what is to be evaluated.
    first: the run, restored for the first of the lanes.
    session: its session, with the evaluators and the average that are requested.
    evaluators: of every lane of the run.
    lanes: those to evaluate.
  """

  request: Request
  first: Restored
  session: Session
  evaluators: Sequence[Evaluators]
  lanes: Sequence[int]

  @property
  def provenance(self) -> dict[str, Any]:
    """The provenance of each evaluator's figures, by name, of the first lane."""
    evaluators = self.evaluators[self.lanes[0]]
    return {name: evaluators.provenance(name) for name in evaluators.names}


@memory_errors('a smaller --config.evaluators.NAME.batch_size, or a device with more memory')
def evaluate_run(request: Request, argv: Sequence[str]) -> None:
  """Runs all evaluators of a run, prints a table and writes it as JSON.

  Of several lanes it shows and writes the mean and the standard deviation of every figure, and the
  figures of each lane. Several processes share the work; the first one prints and writes.

  Args:
    request: what is to be evaluated.
    argv: the command, to be written beside the figures.

  Raises:
    UserError: no run, no such checkpoint, lane, average or split, an evaluator refuses its options,
      or `out` cannot be written.
  """
  if Path(request.out).suffix != '.json':
    raise UserError(f'--out={request.out} must end in .json')
  if request.seed is not None:
    SEED.check(request.seed, '--seed')
  if request.evaluators is not None:
    check_section('evaluators', to_plain(request.evaluators))
  with contextlib.ExitStack() as stack:
    if jax.process_index() > 0:
      stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    _evaluate_and_write(request, argv)


def _evaluate_and_write(request: Request, argv: Sequence[str]) -> None:
  opened = open_request(request)
  files.prepare_out(request.out)
  _introduce(opened)
  started = time.time()
  evaluated = evaluate_lanes(opened)
  seconds = time.time() - started
  if jax.process_index() > 0:
    return
  made_by = _made_by(opened, evaluated, seconds, argv)
  written = _write(files.path(request.out), evaluated, made_by)
  print(_table(evaluated))
  print(f'written  {", ".join(map(str, written))} ({seconds:.0f} s)')


def open_request(request: Request) -> Opened:
  """Opens a run and its evaluators, and checks what is requested of them.

  Raises:
    UserError: as `evaluate_run`.
  """
  first = restore_run(request.workdir, request.checkpoint, request.lane or 0, request.placement)
  session = _with_evaluators(first.session, request)
  evaluators = open_lane_evaluators(session, request.split, unscheduled=True)
  lanes = range(session.lanes.number) if request.lane is None else (request.lane,)
  return Opened(request, first, session, evaluators, lanes)


def evaluate_lanes(opened: Opened) -> list[Evaluated]:
  """Runs all evaluators on every lane that is requested."""
  request = opened.request
  return [
    _evaluate(restored, lane, opened.evaluators[lane], request.seed)
    for lane, restored in restore_lanes(
      opened.first, opened.lanes, request.workdir, request.checkpoint, request.placement
    )
  ]


def _made_by(
  opened: Opened, evaluated: Sequence[Evaluated], seconds: float, argv: Sequence[str]
) -> dict[str, Any]:
  """Everything that the figures depend on, fit for JSON."""
  request, session = opened.request, opened.session
  evaluators = opened.evaluators[opened.lanes[0]]
  return {
    'command': shlex.join(['python', *argv]),
    'workdir': str(files.absolute(request.workdir)),
    'step': evaluated[0].step,
    'checkpoint': request.checkpoint,
    'fingerprints': {
      str(step): read_fingerprint(request.workdir, step)
      for step in sorted({each.step for each in evaluated})
    },
    'lane': request.lane,
    'lanes': [each.label for each in evaluated],
    'average': request.average,
    'split': request.split,
    'data': {
      name: {**evaluators.spec(name).to_json(), 'every_example_once': True}
      for name in evaluators.names
    },
    'seed': "the run's own" if request.seed is None else request.seed,
    'config': run.read_config(request.workdir),
    'overrides': {f'config.{key}': value for key, value in cli.overrides(argv).items()},
    'evaluators': session.config.evaluators.to_dict(),
    'provenance': opened.provenance,
    'code': code_version(),
    'trained_by': run.read_description(request.workdir).get('code'),
    **machine(session.mesh),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'seconds': round(seconds, 1),
  }


def _with_evaluators(session: Session, request: Request) -> Session:
  """The session with the evaluators and the average that are requested."""
  config = session.config.copy_and_resolve_references()
  if request.evaluators is not None:
    config.evaluators = request.evaluators
  for name in request.only:
    choose(config.evaluators, name, '--only')
  if request.only:
    config.evaluators = {name: config.evaluators[name] for name in request.only}
  chosen_averages(session.averages, request.average)  # Refuses one that is not there.
  if request.average:
    for section in config.evaluators.values():
      section.average = request.average
  return session._replace(config=config)


def _introduce(opened: Opened) -> None:
  session, evaluators = opened.session, opened.evaluators[opened.lanes[0]]
  labels = [session.lanes.labels[lane] for lane in opened.lanes]
  lanes = '' if session.lanes.number == 1 else f', {", ".join(labels)}'
  print(f'run      {opened.request.workdir}, step {opened.first.step}{lanes}')
  print(f'devices  {summaries.devices(session.mesh)}')
  splits: dict[str, list[str]] = {}
  for name in evaluators.names:
    spec = evaluators.spec(name)
    splits.setdefault(f'{spec.name} {spec.split}: {spec.n:,} examples', []).append(name)
  for split, names in splits.items():
    print(f'data     {split} ({", ".join(names)})', flush=True)
  for line in _changed_files(opened.first.session):
    print(f'changed  {line}', flush=True)


def _changed_files(session: Session) -> list[str]:
  """Says that files of one's own, which the run is evaluated on, have changed since its training.

  Their test split may have changed with them.
  """
  names = [name for name in split_names(session.data.name) if own_files(name)]
  if not names or session.data.tested not in split_names(session.data.name):
    return []
  now, then = open_training(session.data, session.spec.tokenizer).spec, session.spec
  return [] if now.identity == then.identity else [run.changed_examples(then.n, now)]


def _evaluate(restored: Restored, lane: int, evaluators: Evaluators, seed: int | None) -> Evaluated:
  """Runs all evaluators on one lane."""
  lanes = restored.session.lanes
  held = take_lane(restored.weights, lane, lanes.number)
  key = restored.key(lane) if seed is None else jax.random.key(seed)
  label = lanes.labels[lane]
  of_lane = '' if lanes.number == 1 else f'{label} '
  parts: tuple[dict[str, Any], ...] = ({}, {}, {})
  for name in evaluators.names:
    with Counting(f'evaluate {of_lane}{name}', evaluators.number(name)) as progress:
      results = evaluators.evaluate(name, held, key, True, progress)
    for whole, part in zip(parts, results):
      whole.update(part)
  return Evaluated(lane, label, int(lanes.seeds[lane]), restored.step, Results(*parts))


def _write(
  path: files.Path, evaluated: Sequence[Evaluated], made_by: Mapping[str, Any]
) -> list[files.Path]:
  """Writes the figures as JSON and the pictures beside them; returns the paths."""
  pictures = {
    path.with_name(f'{_prefix(each, evaluated)}{name.replace("/", "_")}.png'): picture
    for each in evaluated
    for name, picture in each.results.pictures.items()
  }
  try:
    files.write_json(path, {**as_content(evaluated), 'made_by': made_by})
    for where, picture in pictures.items():
      write_png(where, picture)
  except OSError as error:
    raise UserError(f'cannot write {path} ({error.strerror}); choose another --out') from error
  return [path, *pictures]


def as_content(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
  """Returns the figures and tables as `metrics.json` holds them, all but `made_by`."""
  if len(evaluated) == 1:
    return _as_json(evaluated[0].results)
  means = {name: float(np.mean(v)) for name, v in by_figure(evaluated).items()}
  deviations = {name: _deviation(values) for name, values in by_figure(evaluated).items()}
  return {
    'metrics': {name: finite(value) for name, value in means.items()},
    'standard_deviations': {name: finite(value) for name, value in deviations.items()},
    'lanes': [
      {
        'lane': each.lane,
        'label': each.label,
        'seed': each.seed,
        'step': each.step,
        **_as_json(each.results),
      }
      for each in evaluated
    ],
  }


def _prefix(each: Evaluated, evaluated: Sequence[Evaluated]) -> str:
  return '' if len(evaluated) == 1 else f'{each.label}_'


def _as_json(results: Results) -> dict[str, Any]:
  return {**as_json(results.figures), 'tables': dict(results.tables)}


def by_figure(evaluated: Sequence[Evaluated]) -> dict[str, list[float]]:
  """Returns the values of every figure, those of the lanes that have it."""
  names = dict.fromkeys(name for each in evaluated for name in each.results.figures)
  return {
    name: [e.results.figures[name].mean for e in evaluated if name in e.results.figures]
    for name in names
  }


def _deviation(values: Sequence[float]) -> float:
  """The standard deviation with n − 1 in the denominator; NaN of one value."""
  return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _table(evaluated: Sequence[Evaluated]) -> str:
  """The table that a person reads."""
  figures = by_figure(evaluated)
  width = max(map(len, ('figure', *figures)))
  if len(evaluated) == 1:
    head = f'{"figure":{width}}  {"value":>12}  standard error, or 95 % interval'
    found = evaluated[0].results.figures
    rows = [f'{n:{width}}  {f.mean:12.6g}  {_certainty(f)}' for n, f in found.items()]
    return '\n'.join(['', head, *rows, ''])
  shown = evaluated if len(evaluated) <= _MOST_SHOWN else ()
  columns = ''.join(f'  {each.label:>12}' for each in shown)
  head = f'{"figure":{width}}  {"mean":>12}  {"sd":>10}{columns}'
  rows = [
    f'{name:{width}}  {np.mean(values):12.6g}  {_deviation(values):10.3g}'
    + ''.join(_cell(each.results.figures.get(name)) for each in shown)
    for name, values in figures.items()
  ]
  return '\n'.join(['', head, *rows, ''])


def _cell(figure: Figure | None) -> str:
  return f'  {"":>12}' if figure is None else f'  {figure.mean:12.6g}'


def _certainty(figure: Figure) -> str:
  if figure.interval is not None:
    low, high = figure.interval
    return f'{low:.4g} to {high:.4g}'
  return '' if figure.standard_error is None else f'{figure.standard_error:.2g}'


def as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
  """Returns `metrics` by name, and where they have them `standard_errors` and 95 % `intervals`."""
  errors = {n: f.standard_error for n, f in figures.items() if f.standard_error is not None}
  intervals = {n: f.interval for n, f in figures.items() if f.interval is not None}
  return {
    'metrics': {name: finite(figure.mean) for name, figure in figures.items()},
    'standard_errors': {name: finite(error) for name, error in errors.items()},
    'intervals': {name: [*map(finite, ends)] for name, ends in intervals.items()},
  }


def finite(value: float) -> float | None:
  """Returns the value, None for what JSON has no number for."""
  return value if math.isfinite(value) else None
