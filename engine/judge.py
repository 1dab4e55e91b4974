"""The evaluators on a finished run: a table for the person, metrics.json for everyone else."""

import datetime
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from engine import describe, run, runtime
from engine.evaluation import Evaluator, Figure, make_evaluator
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
  print(f'devices  {describe.devices(restored.session.mesh)}')
  print(f'data     {spec.name} {spec.split}: {spec.n:,} examples', flush=True)
  key = restored.state.key if seed is None else jax.random.key(seed)
  started = time.time()
  figures = _figures(evaluator, variables_for_sampling(restored.state), key)
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
    'devices': describe.devices(restored.session.mesh),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'seconds': round(seconds, 1),
  }
  _print(figures)
  written = {
    'metrics': {name: _finite(figure.mean) for name, figure in figures.items()},
    'standard_errors': {
      name: _finite(figure.standard_error)
      for name, figure in figures.items()
      if figure.standard_error is not None
    },
    'made_by': made_by,
  }
  try:
    run.write_json(Path(out), written)
  except OSError as error:
    raise UserError(f'cannot write {out} ({error.strerror}); choose another --out') from error
  print(f'written  {out} ({seconds:.0f} s)')


def _figures(evaluator: Evaluator, variables: Any, key: jax.Array) -> dict[str, Figure]:
  figures = {}
  for what, method in (('evaluate', evaluator.evaluate), ('measure', evaluator.measure)):
    with Counting(what, evaluator.number) as progress:
      figures.update(method(variables, key, progress))
  compared = evaluator.compare_samples(variables, key)
  return {**figures, **{name: Figure(value, None) for name, value in compared.items()}}


def _print(figures: Mapping[str, Figure]) -> None:
  width = max(map(len, figures))
  print(f'\n{"figure":{width}}  {"value":>12}  standard error')
  for name, (mean, error) in figures.items():
    print(f'{name:{width}}  {mean:12.6g}  {"" if error is None else f"{error:.2g}"}')
  print()


def _finite(value: float) -> float | None:
  """JSON has no NaN."""
  return value if math.isfinite(value) else None
