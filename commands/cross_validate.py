"""K-fold cross-validation: every example is held out once, and the folds' figures are averaged."""

import datetime
import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from commands.evaluate_run import as_json, finite
from data.selection import Fold
from data.source import Examples, Spec
from engine import lanes, loop, run, runtime, summaries
from engine.evaluation import Figure, make_evaluator
from engine.report import Counting
from engine.restore import Restored, restore_run
from engine.session import (
  Session,
  check_sections,
  data_options,
  open_session,
  open_testing,
  open_training,
)
from engine.state import variables_for_sampling
from errors import UserError

CONFIDENCE = 0.95


class Spread(NamedTuple):
  """A figure over the folds.

  Attributes:
    mean: of the K folds' values.
    sd: their standard deviation, with K − 1 in the denominator.
    interval: (low, high) that holds the mean with 95 % confidence.
  """

  mean: float
  sd: float
  interval: tuple[float, float]


def spread(values: Sequence[float]) -> Spread:
  """Mean, standard deviation and Student's interval x̄ ± t·s/√K of K ≥ 2 values, t with K − 1
  degrees of freedom. NaN where a value is.

  For folds the interval is approximate, and as a rule too narrow: they share training examples, so
  their values are correlated, and no unbiased estimate of the mean's variance exists (Bengio and
  Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation", theorem 1).
  """
  from scipy import stats

  number, mean, sd = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
  half = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * sd / math.sqrt(number)
  return Spread(mean, sd, (mean - half, mean + half))


class Scored(NamedTuple):
  """A fold that was trained and evaluated.

  Attributes:
    fold: which one.
    step: it was trained for.
    spec: of the examples that it held out, which it was evaluated on.
    figures: what they came to.
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
    folds: K; all in one program where that can be (`lanes.fit_together`), else K runs one after
      another, in WORKDIR/fold_I.
    workdir: the folder.
    argv: the command, to be written beside the figures.

  Raises:
    UserError: the config, the number of folds, the folder, the data or the devices do not allow it.
    SystemExit: 130 or 143 after Ctrl-C or SIGTERM in training, with everything saved.
  """
  check_sections(config)
  data = data_options(config)
  if data.folds or data.fold:
    raise UserError(
      'config.data.folds and config.data.fold choose one fold for train.py; leave them at 0 and '
      'give --folds'
    )
  source = open_training(data)
  Fold(source, 0, folds, held_out=True)  # So many folds can be cut, or it says so.
  session = open_session(_of_fold(config, 0, folds))
  together = lanes.fit_together(session, source)
  how = 'in one program' if together else 'one after another'
  started = time.time()
  with run.only_writer(workdir):
    for line in run.claim(workdir, session.config, source.spec):
      print(f'changed  {line}')
    print(f'devices  {summaries.devices(session.mesh)}')
    print(f'data     {summaries.data(source.spec, together)}')
    print(f'folds    {folds} {how}, each trained on {session.spec.n:,} examples', flush=True)
    trained = _together(session, source, workdir) if together else _in_turn(config, folds, workdir)
    scored = [_score(config, fold, folds, restored) for fold, restored in enumerate(trained)]
    made_by = {
      'command': shlex.join(['python', *argv]),
      'workdir': str(Path(workdir).resolve()),
      'folds': folds,
      'trained': how,
      'data': {**source.spec.to_json(), 'held_out': sum(each.spec.n for each in scored)},
      'config': run.read_config(workdir),
      'versions': runtime.versions(),
      'devices': summaries.devices(session.mesh),
      'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'seconds': round(time.time() - started, 1),
    }
    spreads = {name: spread([s.figures[name].mean for s in scored]) for name in scored[0].figures}
    _print(spreads)
    if session.train.patience:
      print('Each fold stopped when what it held out said so: the figures are a little too good.\n')
    written = _write(workdir, scored, spreads, made_by)
  print(f'written  {written}, and metrics.json of every fold ({made_by["seconds"]:.0f} s)')


def _of_fold(config: ConfigDict, fold: int, folds: int) -> ConfigDict:
  config = config.copy_and_resolve_references()
  config.data.folds, config.data.fold = folds, fold
  return config


def _together(session: Session, source: Examples, workdir: str) -> Iterator[Restored]:
  state, step = lanes.train(lanes.open_lanes(session, source), workdir)
  for fold in range(session.data.folds):
    yield Restored(session, lanes.lane(state, fold), step)


def _in_turn(config: ConfigDict, folds: int, workdir: str) -> Iterator[Restored]:
  for fold in range(folds):
    print(f'\nfold     {fold} of {folds}', flush=True)
    loop.train(_of_fold(config, fold, folds), _folder(workdir, fold))
    yield restore_run(_folder(workdir, fold), '')


def _folder(workdir: str, fold: int) -> str:
  return f'{workdir}/fold_{fold}'


def _score(config: ConfigDict, fold: int, folds: int, trained: Restored) -> Scored:
  data = data_options(_of_fold(config, fold, folds))
  part = open_testing(data, trained.session.spec.tokenizer)
  evaluator = make_evaluator(trained.session, part)
  variables, key = variables_for_sampling(trained.state), trained.state.key
  with Counting(f'evaluate fold {fold}', evaluator.number) as progress:
    figures = evaluator.evaluate(variables, key, False, progress).figures
  compared = evaluator.compare_samples(variables, key)
  figures = {**figures, **{name: Figure(value, None) for name, value in compared.items()}}
  return Scored(fold, trained.step, part.spec, figures)


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
) -> Path:
  """Writes the figures of each fold, then those of all; returns where the latter are."""
  path = Path(workdir) / 'cross_validation.json'
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
      folder = Path(_folder(workdir, entry['fold']))
      folder.mkdir(exist_ok=True)
      run.write_json(folder / 'metrics.json', {**entry, 'made_by': made_by})
    run.write_json(path, whole)
  except OSError as error:
    raise UserError(
      f'cannot write to {workdir} ({error.strerror}); mend that and run the same command again'
    ) from error
  return path
