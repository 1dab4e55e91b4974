"""Runs side by side: a list, the differences of two, the curves of several."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import files
from commands.run_records import Record, find_runs, is_number, read_record
from engine import pictures, run
from errors import UserError, nearest


def list_runs(folders: Sequence[str]) -> None:
  """Prints a table of the runs in some folders; those that are damaged with what is wrong."""
  header = ('run', 'config', 'step', 'best', 'last written', 'status')
  rows, damaged = [], []
  for folder in _all_runs(folders):
    try:
      rows.append(_row(read_record(folder)))
    except UserError as error:
      damaged.append((folder, str(error)))
  if rows:
    print('\n'.join(aligned([header, *rows])))
  for folder, reason in damaged:
    print(f'damaged  {reason if reason.startswith(folder) else f"{folder}: {reason}"}')
  if not rows and not damaged:
    print(f'no runs in {", ".join(folders)}')


def compare_runs(first: str, second: str) -> None:
  """Prints in which options two runs differ, and the figures of the best step of each.

  Raises:
    UserError: one of them is no run, or is damaged.
  """
  one, other = (read_record(folder) for folder in (first, second))
  # `read_config` gives dicts of JSON for both.
  changed = run.differences(one.config, other.config)
  options = [
    (f'config.{key}', *map(_shown, (_value(one.config, key), _value(other.config, key))))
    for key in changed
  ]
  print('\n'.join(aligned([('option', first, second), *options])))
  if not options:
    print('(none differs)')
  lines = [record.best_line or _last_evaluated(record) for record in (one, other)]
  names = dict.fromkeys(name for line in lines for name in line)
  # NAME/LANE and NAME/sd are told of in the line of NAME.
  own = [name for name in names if name.rpartition('/')[0] not in names]
  figures = [
    (name, *(_number(line.get(name), line.get(f'{name}/sd')) for line in lines))
    for name in own
    if name not in ('step', 'wall_time', 'steps_per_second')
  ]
  titles = [
    f'{"best" if record.best_line else "last"} step {line.get("step", "–")}'
    for record, line in zip((one, other), lines)
  ]
  print()
  print('\n'.join(aligned([('figure', *titles), *figures])))


def plot_runs(folders: Sequence[str], figure: str, out: str) -> None:
  """Writes the curves of a figure of metrics.jsonl, of all runs in some folders, as a PNG.

  Raises:
    UserError: no run has the figure, or the file cannot be written.
  """
  if not out.endswith('.png'):
    raise UserError(f'--out={out} must end in .png')
  files.prepare_out(out)
  lines: dict[str, Any] = {}
  without: list[str] = []
  known: dict[str, None] = {}
  for folder in _all_runs(folders):
    try:
      record = read_record(folder)
    except UserError as error:
      print(f'left out {error}', file=sys.stderr)
      continue
    known.update(dict.fromkeys(name for line in record.lines for name in line))
    curve = _curve(record, figure)
    if curve[0]:
      lines[folder] = curve
    else:
      without.append(folder)
  if not lines:
    names = [name for name in known if '/' in name and name.rpartition('/')[0] not in known]
    raise UserError(
      f'--plot={figure}: no run has that figure{nearest(figure, names)}; there are: '
      f'{", ".join(names) or "none"}'
    )
  for folder in without:
    print(f'left out {folder}: it has no figure {figure}', file=sys.stderr)
  from metrics import charts

  pixels = charts.to_pixels(charts.curves(lines, figure))
  try:
    pictures.write_png(files.path(out), pixels)
  except OSError as error:
    raise UserError(
      f'cannot write {out} ({error.strerror or error}); choose another --out'
    ) from error
  print(f'{figure} of {len(lines)} {"run" if len(lines) == 1 else "runs"}: {out}')


def _all_runs(folders: Sequence[str]) -> list[str]:
  return [*dict.fromkeys(name for folder in folders for name in find_runs(folder))]


def _row(record: Record) -> tuple[str, ...]:
  config = record.config
  best, line = record.ranking_figure, record.best_line
  shown = f'{best} {line[best]:.4g} at {line["step"]:,}' if line else '–'
  steps = '?' if record.steps is None else f'{record.steps:,}'
  when = time.strftime('%Y-%m-%d %H:%M', time.localtime(record.when))
  what = f'{config["objective"]["name"]} {config["data"]["name"]}'
  return record.name, what, f'{record.step:,} of {steps}', shown, when, record.status


def _curve(record: Record, figure: str) -> tuple[list[float], list[float], list[float]]:
  """Steps, values, and deviations over lanes, NaN where there are none."""
  name = record.logged_name(figure)
  points = [line for line in record.lines if is_number(line.get(name))]
  deviations = [line.get(f'{name}/sd') for line in points]
  return (
    [line['step'] for line in points],
    [line[name] for line in points],
    [value if is_number(value) else float('nan') for value in deviations],
  )


def _last_evaluated(record: Record) -> dict[str, Any]:
  """The last line with a figure of an evaluator; the last one of all where there is none."""
  evaluators = tuple(f'{name}/' for name in record.config['evaluators'])
  found = [line for line in record.lines if any(name.startswith(evaluators) for name in line)]
  return dict((found or record.lines or [{}])[-1])


def _value(config: Any, key: str) -> Any:
  for part in key.split('.'):
    if not isinstance(config, dict) or part not in config:
      return '–'
    config = config[part]
  return config


def _shown(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 40 else f'{text[:39]}…'


def _number(value: Any, deviation: Any) -> str:
  if not is_number(value):
    return '–'
  return f'{value:.5g} ± {deviation:.2g}' if is_number(deviation) else f'{value:.5g}'


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns rows of cells as lines whose columns begin at the same place."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return ['  '.join(f'{cell:{width}}' for cell, width in zip(row, widths)).rstrip() for row in rows]
