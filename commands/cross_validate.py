"""K-fold cross-validation: every example is held out once, and the folds' figures are averaged."""

import datetime
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import files
from commands.evaluate_run import as_json, finite
from commands.spreads import Spread, spread
from data.section import ALL_FOLDS, open_testing, open_whole
from data.selection import Fold
from data.spec import Spec
from engine import loop, runtime, summaries
from engine.declarations import check_config
from engine.evaluation import Evaluators, open_lane_evaluators
from engine.evaluators.base import Figure
from engine.lanes import take_lane
from engine.report import Counting
from engine.restore import Restored, restore_run
from engine.session import data_options, open_session
from errors import UserError


class Scored(NamedTuple):
  """A fold that was trained and evaluated.

  Attributes:
    fold: which one.
    step: it was trained for.
    spec: of the examples that it held out, which it was evaluated on.
    figures: of that evaluation.
  """

  fold: int
  step: int
  spec: Spec
  figures: Mapping[str, Figure]


def cross_validate(config: ConfigDict, folds: int, workdir: str, argv: Sequence[str]) -> None:
  """Trains every fold, evaluates it on what it held out, prints a table and writes it as JSON.

  A call that was stopped goes on where it was; one that was finished evaluates again. The figures
  go to WORKDIR/cross_validation.json, those of each fold to WORKDIR/fold_I/metrics.json.

  Args:
    config: the experiment.
    folds: K; lanes of one run where the split lives on the devices, else K runs one after another,
      in WORKDIR/fold_I.
    workdir: the folder.
    argv: the command, to be written beside the figures.

  Raises:
    UserError: the config, the number of folds, the folder, the data or the devices do not allow it.
    SystemExit: 130 or 143 after Ctrl-C or SIGTERM in training, with everything saved.
  """
  check_config(config)
  for name in ('folds', 'fold'):
    if config.data[name]:
      raise UserError(
        f'config.data.{name}={config.data[name]} chooses one fold for train.py; leave it at 0 and '
        'give --folds'
      )
  data = data_options(config)
  if config.seeds != 1:
    raise UserError(
      f'config.seeds={config.seeds} has no place beside folds, which are lanes too; leave it at 1'
    )
  source = open_whole(data)
  Fold(source, 0, folds, held_out=True)  # Refuses a number of folds that cannot be cut.
  as_lanes = not data.text and source.nbytes <= data.resident_mb * 2**20
  how = 'as lanes of one run' if as_lanes else 'one after another'
  print(f'folds    {folds} {how} of {source.spec.n:,} examples', flush=True)
  started = time.time()
  train = _train_lanes if as_lanes else _train_in_turn
  scored = [*train(config, folds, workdir)]
  made_by = {
    'command': shlex.join(['python', *argv]),
    'workdir': str(files.absolute(workdir)),
    'folds': folds,
    'trained': how,
    'data': {**source.spec.to_json(), 'held_out': sum(each.spec.n for each in scored)},
    'config': config.to_dict(),
    'versions': runtime.versions(),
    'devices': summaries.devices(open_session(_of_fold(config, 0, folds)).mesh),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'seconds': round(time.time() - started, 1),
  }
  spreads = {name: spread([s.figures[name].mean for s in scored]) for name in scored[0].figures}
  _print(spreads)
  if config.train.patience:
    print('Each fold stopped by the figures of what it held out: they are a little too good.\n')
  written = _write(workdir, scored, spreads, made_by)
  print(f'written  {written}, and metrics.json of every fold ({made_by["seconds"]:.0f} s)')


def _of_fold(config: ConfigDict, fold: int, folds: int) -> ConfigDict:
  config = config.copy_and_resolve_references()
  config.data.folds, config.data.fold = folds, fold
  return config


def _train_lanes(config: ConfigDict, folds: int, workdir: str) -> Iterator[Scored]:
  loop.train(_of_fold(config, ALL_FOLDS, folds), workdir)
  restored = restore_run(workdir, '')
  for fold, evaluators in enumerate(open_lane_evaluators(restored.session)):
    yield _score(fold, folds, config, restored, fold, evaluators)


def _train_in_turn(config: ConfigDict, folds: int, workdir: str) -> Iterator[Scored]:
  for fold in range(folds):
    print(f'\nfold     {fold} of {folds}', flush=True)
    loop.train(_of_fold(config, fold, folds), _folder(workdir, fold))
    restored = restore_run(_folder(workdir, fold), '')
    (evaluators,) = open_lane_evaluators(restored.session)
    yield _score(fold, folds, config, restored, 0, evaluators)


def _folder(workdir: str, fold: int) -> str:
  return f'{workdir}/fold_{fold}'


def _score(
  fold: int,
  folds: int,
  config: ConfigDict,
  restored: Restored,
  lane: int,
  evaluators: Evaluators,
) -> Scored:
  """Evaluates a fold by every evaluator that training runs too."""
  held = take_lane(restored.weights, lane, restored.session.lanes.number)
  figures: dict[str, Figure] = {}
  for name in evaluators.due(0, True):
    with Counting(f'evaluate fold {fold} {name}', evaluators.number(name)) as progress:
      figures.update(evaluators.evaluate(name, held, restored.key(lane), progress=progress).figures)
  data = data_options(_of_fold(config, fold, folds))
  part = open_testing(data, restored.session.spec)
  return Scored(fold, restored.step, part.spec, figures)


def _print(spreads: Mapping[str, Spread]) -> None:
  width = max(map(len, ('figure', *spreads)))
  print(f'\n{"figure":{width}}  {"mean":>12}  {"sd":>10}  95 % interval of the mean')
  for name, (mean, sd, (low, high)) in spreads.items():
    print(f'{name:{width}}  {mean:12.6g}  {sd:10.3g}  {low:.4g} to {high:.4g}')
  print()


def _write(
  workdir: str,
  scored: Sequence[Scored],
  spreads: Mapping[str, Spread],
  made_by: Mapping[str, Any],
) -> files.Path:
  """Writes the figures of each fold, then those of all; returns where the latter are."""
  path = files.path(workdir) / 'cross_validation.json'
  folds = [
    {
      'fold': fold,
      'step': step,
      'data': spec.to_json(),
      **as_json(figures),
    }
    for fold, step, spec, figures in scored
  ]
  whole = {
    'metrics': {name: finite(value.mean) for name, value in spreads.items()},
    'standard_deviations': {name: finite(value.sd) for name, value in spreads.items()},
    'intervals': {name: [*map(finite, value.interval)] for name, value in spreads.items()},
    'folds': folds,
    'made_by': made_by,
  }
  try:
    for entry in folds:
      folder = files.path(_folder(workdir, entry['fold']))
      files.write_json(folder / 'metrics.json', {**entry, 'made_by': made_by})
    files.write_json(path, whole)
  except OSError as error:
    raise UserError(
      f'cannot write to {workdir} ({error.strerror}); mend that and run the same command again'
    ) from error
  return path
