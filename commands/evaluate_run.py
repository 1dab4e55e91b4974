"""The evaluators on a finished run: a table for the person, metrics.json for everyone else."""

import datetime
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from engine import run, runtime, summaries
from engine.evaluation import Evaluation, Evaluator, Figure, make_evaluator
from engine.pictures import write_png
from engine.report import Counting
from engine.restore import check_seed, make_folder, open_split, restore_run
from engine.state import variables_for_sampling
from errors import UserError


def judge(
  workdir: str, checkpoint: str, split: str, seed: int | None, out: str, argv: Sequence[str]
) -> None:
  """Evaluates a run, prints a table and writes it as JSON.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', or a step.
    split: of the run's data set; '' for the one that training evaluated on.
    seed: of the noise; None for the run's own, which gives the figures that training logged.
    out: a .json, with the figures under `metrics` and what made them under `made_by`.
    argv: the command, to be written beside them.

  Raises:
    UserError: no run, no such checkpoint or split, `out` cannot be written.
  """
  if Path(out).suffix != '.json':
    raise UserError(f'--out={out} must end in .json')
  if seed is not None:
    check_seed(seed)
  restored = restore_run(workdir, checkpoint)
  source = open_split(restored.session, split)
  evaluator = make_evaluator(restored.session, source)
  make_folder(Path(out))
  spec = source.spec
  print(f'run      {workdir}, step {restored.step}')
  print(f'devices  {summaries.devices(restored.session.mesh)}')
  print(f'data     {spec.name} {spec.split}: {spec.n:,} examples', flush=True)
  key = restored.state.key if seed is None else jax.random.key(seed)
  started = time.time()
  figures, tables, pictures = _evaluate(evaluator, variables_for_sampling(restored.state), key)
  seconds = time.time() - started
  made_by = {
    'command': shlex.join(['python', *argv]),
    'workdir': str(Path(workdir).resolve()),
    'step': restored.step,
    'checkpoint': checkpoint,
    'data': {**spec.to_json(), 'every_example_once': True},
    'seed': "the run's own" if seed is None else seed,
    'config': run.read_config(workdir),
    'versions': runtime.versions(),
    'devices': summaries.devices(restored.session.mesh),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'seconds': round(seconds, 1),
  }
  written = {
    **as_json(figures),
    'tables': tables,
    'made_by': made_by,
  }
  try:
    run.write_json(Path(out), written)
    for name, picture in pictures.items():
      write_png(Path(out).with_name(f'{name}.png'), picture)
  except OSError as error:
    raise UserError(f'cannot write {out} ({error.strerror}); choose another --out') from error
  _print(figures)
  drawn = [str(Path(out).with_name(f'{name}.png')) for name in pictures]
  print(f'written  {", ".join([out, *drawn])} ({seconds:.0f} s)')


def _evaluate(evaluator: Evaluator, variables: Any, key: jax.Array) -> Evaluation:
  with Counting('evaluate', evaluator.number) as progress:
    evaluation = evaluator.evaluate(variables, key, True, progress)
  with Counting('measure', evaluator.number) as progress:
    measured = evaluator.measure(variables, key, progress)
  compared = evaluator.compare_samples(variables, key)
  figures = {
    **evaluation.figures,
    **measured,
    **{name: Figure(value, None) for name, value in compared.items()},
    **evaluator.time(variables, key),
  }
  return evaluation._replace(figures=figures)


def _print(figures: Mapping[str, Figure]) -> None:
  width = max(map(len, figures))
  print(f'\n{"figure":{width}}  {"value":>12}  standard error, or 95 % interval')
  for name, figure in figures.items():
    print(f'{name:{width}}  {figure.mean:12.6g}  {_how_sure(figure)}')
  print()


def _how_sure(figure: Figure) -> str:
  if figure.interval is not None:
    low, high = figure.interval
    return f'{low:.4g} to {high:.4g}'
  return '' if figure.standard_error is None else f'{figure.standard_error:.2g}'


def as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
  """`metrics` by name, and where there are any their `standard_errors` and 95 % `intervals`."""
  errors = {n: f.standard_error for n, f in figures.items() if f.standard_error is not None}
  intervals = {n: f.interval for n, f in figures.items() if f.interval is not None}
  return {
    'metrics': {name: finite(figure.mean) for name, figure in figures.items()},
    'standard_errors': {name: finite(error) for name, error in errors.items()},
    'intervals': {name: [*map(finite, ends)] for name, ends in intervals.items()},
  }


def finite(value: float) -> float | None:
  """JSON has no NaN."""
  return value if math.isfinite(value) else None
