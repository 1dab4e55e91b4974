"""The metrics.json of evaluated runs, read and checked without opening the runs."""

import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import files
from commands.run_records import find_runs
from errors import UserError

METRICS = 'metrics.json'


class Recorded(NamedTuple):
  """A figure as a file holds it.

  Attributes:
    value: None where it is not finite.
    error: its standard error; None without one.
    interval: its 95 % interval; None without one.
  """

  value: float | None
  error: float | None = None
  interval: tuple[float, float] | None = None


class Lane(NamedTuple):
  """The figures of one training.

  Attributes:
    label: of the lane, e.g. 'seed_0'.
    seed: that it was trained with.
    step: of its checkpoint.
    figures: by name.
  """

  label: str
  seed: int
  step: int
  figures: Mapping[str, Recorded]


class Result(NamedTuple):
  """The figures that evaluate.py wrote for a run.

  Attributes:
    run: the run's folder, as it was given.
    lanes: of the run, those that were evaluated.
    made_by: what the figures were made by.
  """

  run: str
  lanes: Sequence[Lane]
  made_by: Mapping[str, Any]

  @property
  def config(self) -> Mapping[str, Any]:
    """The run's config, as plain dicts."""
    return self.made_by['config']

  @property
  def names(self) -> list[str]:
    """The names of all figures, in the order of the evaluators."""
    return [*dict.fromkeys(name for lane in self.lanes for name in lane.figures)]


def expand(folders: Sequence[str], flag: str = '--runs') -> list[str]:
  """Returns the folders of runs that a flag names: runs, folders above runs, and patterns.

  Args:
    folders: what the flag holds; `*`, `?` and `[…]` stand for parts of local names.
    flag: for messages.

  Raises:
    UserError: one names no folder, or there is no run below it.
  """
  found: dict[str, None] = {}
  for folder in folders:
    places = [folder]
    if files.is_local(folder) and glob.has_magic(folder):
      matched = sorted(glob.glob(os.path.expanduser(folder)))
      places = [place for place in matched if os.path.isdir(place)]
      if not places:
        raise UserError(f'{flag}={folder} matches no folder; give folders of runs, e.g. runs/a')
    runs = [run for place in places for run in find_runs(place)]
    if not runs:
      raise UserError(f'{flag}={folder}: there is no run below it; give folders of runs')
    found.update(dict.fromkeys(runs))
  if not found:
    raise UserError(f'{flag}= names no run; give folders of runs, e.g. {flag}=runs/a,runs/b')
  return [*found]


def read_result(folder: str) -> Result:
  """Reads the metrics.json in the folder of a run.

  Raises:
    UserError: the run was not evaluated yet, or the file is damaged or of an older version.
  """
  path = files.path(folder) / METRICS
  again = f'python evaluate.py --workdir={folder}'
  if not path.exists():
    raise UserError(f'{folder} was not evaluated: there is no {path}; run {again}')
  return as_result(read_content(str(path)), folder, str(path), again)


def read_content(path: str) -> Any:
  """Reads a file of figures.

  Raises:
    UserError: it is missing, cannot be read or is no JSON.
  """
  try:
    return files.read_json(files.path(path))
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror or error})') from error
  except ValueError as error:
    raise UserError(f'{path} is damaged: it is no JSON ({error})') from error


# What `made_by` holds at least, and of which type.
_NEEDED = {
  'command': str,
  'workdir': str,
  'step': int,
  'checkpoint': str,
  'fingerprints': dict,
  'lanes': list,
  'average': str,
  'split': str,
  'config': dict,
  'evaluators': dict,
  'provenance': dict,
  'date': str,
}


def as_result(content: Any, run: str, where: str, again: str) -> Result:
  """Returns the figures in the content of a metrics.json.

  Args:
    content: of the file.
    run: the folder that the result is called by.
    where: the file, for messages.
    again: the command that writes it anew.

  Raises:
    UserError: the content is damaged or of an older version.
  """
  try:
    made_by = content['made_by']
    missing = [key for key, kind in _NEEDED.items() if not isinstance(made_by.get(key), kind)]
    if missing:
      raise UserError(
        f'{where} does not say all that its figures were made by ({", ".join(missing)}), as '
        f'evaluate.py writes it now; run {again}'
      )
    lanes = content.get('lanes', [])
    if lanes:
      read = [
        Lane(each['label'], int(each['seed']), int(each['step']), figures_of(each))
        for each in lanes
      ]
    else:
      seed = int(made_by['config']['train']['seed']) + int(made_by['lane'] or 0)
      label = made_by['lanes'][0]
      read = [Lane(label, seed, int(made_by['step']), figures_of(content))]
  except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
    raise UserError(f'{where} is damaged ({type(error).__name__}: {error}); run {again}') from error
  return Result(run, read, made_by)


def figures_of(content: Mapping[str, Any]) -> dict[str, Recorded]:
  """Returns the figures of `metrics`, `standard_errors` and `intervals`.

  Raises:
    TypeError, ValueError: they hold something else than numbers.
  """
  errors, intervals = content.get('standard_errors', {}), content.get('intervals', {})
  return {
    name: Recorded(_number(value), _number(errors.get(name)), _interval(intervals.get(name)))
    for name, value in content['metrics'].items()
  }


def _number(value: Any) -> float | None:
  if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
    raise TypeError(f'{value!r} is no number')
  return None if value is None else float(value)


def _interval(ends: Any) -> tuple[float, float] | None:
  if ends is None:
    return None
  low, high = ends
  numbers = _number(low), _number(high)
  return None if None in numbers else numbers
