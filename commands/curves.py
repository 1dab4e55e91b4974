"""Published curves: mean and band of seeds as CSV and PNG, and a run laid over such a CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import files
from commands.run_records import Record, find_runs, is_number, read_record
from engine import run
from errors import UserError, nearest

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# How the band is made of the seeds.
MIN_MAX, DEVIATION = 'min-max', 'sd'
_HEADER = ('figure', 'step', 'mean', 'low', 'high', 'seeds')
# The ends of the names of a lane's figures.
_LANE = re.compile(r'(seed|fold)_\d+')
# Options in which the seeds of one curve may differ.
_OF_SEEDS = ('seeds', 'train.seed', *run.FREE)
_GREY, _BLUE, _DARK = '#bdbdbd', '#0072b2', '#525252'
_COLOURS = 48  # of the PNG: a few are enough for lines, and keep it small


class Curve(NamedTuple):
  """The curve of one figure over several seeds; arrays [S], float64.

  Attributes:
    steps: ascending.
    mean: over the seeds.
    low: lower end of the band.
    high: upper end.
    seeds: how many there are.
  """

  steps: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray
  seeds: int


# Values of one seed by step.
Series = Mapping[int, float]


def write_curves(
  folders: Sequence[str], figures: Sequence[str], out: str, table: str, band: str
) -> None:
  """Writes the curves of the seeds of one config as a PNG and a CSV.

  Args:
    folders: of runs, or above runs; every run, and every lane of it, is a seed.
    figures: to be drawn, a panel each.
    out: the PNG.
    table: the CSV; '' for none.
    band: `MIN_MAX`, or `DEVIATION`: one standard deviation (L − 1) around the mean.

  Raises:
    UserError: the runs are of different configs, one lacks a figure, or a file cannot be written.
  """
  records = _records(folders)
  _check_same(records)
  curves = {}
  for figure in figures:
    names = {record.logged_name(figure) for record in records}
    if len(names) > 1:
      raise UserError(
        f'--plot={figure} stands for {" and ".join(sorted(names))} in these runs; give runs that '
        'logged one and the same'
      )
    series = [each for record in records for each in _series(record, figure)]
    curves[names.pop()] = curve_of(series, band)
  _prepare(out, table)
  if table:
    _write(table, '--csv', to_csv(curves).encode())
  _write(out, '--out', _png(_panels(curves, {}, _seeds_shown(curves, band))))
  print(f'{", ".join(curves)} of {_counted(curves)}: {", ".join(filter(None, (table, out)))}')


def plot_against(folders: Sequence[str], table: str, figures: Sequence[str], out: str) -> None:
  """Draws the curves of runs over those of a CSV, and prints where they end.

  Args:
    folders: of runs, or above runs.
    table: the CSV, as `write_curves` writes it.
    figures: of the CSV; empty for all.
    out: the PNG.

  Raises:
    UserError: the CSV is none, or no run has one of the figures.
  """
  published = from_csv(table)
  chosen = {_known(figure, published, table): None for figure in figures} or dict(published)
  records = _records(folders)
  runs: dict[str, dict[str, list[Series]]] = {}
  for figure in chosen:
    held = {record.name: _series(record, figure, required=False) for record in records}
    runs[figure] = {name: series for name, series in held.items() if series}
    if not runs[figure]:
      logged = dict.fromkeys(name for record in records for name in record.figures)
      raise UserError(
        f'{figure} of {table} was not logged by {", ".join(record.name for record in records)}'
        f'{nearest(figure, logged)}; choose another of its figures with --plot: '
        f'{", ".join(published)}'
      )
  _prepare(out, '')
  shown = {figure: published[figure] for figure in chosen}
  _write(out, '--out', _png(_panels(shown, runs, table.rsplit('/', 1)[-1])))
  for figure, curve in shown.items():
    for name, series in runs[figure].items():
      for one in series:
        print(f'{name}: {comparison(figure, curve, one)}')
  print(f'drawn over {table}: {out}')


def comparison(figure: str, curve: Curve, series: Series) -> str:
  """Returns what a run's figure is at the last step that a curve has too, beside its band."""
  common = [i for i, step in enumerate(curve.steps) if int(step) in series]
  if not common:
    return f'{figure} has no step that the curve has, which goes to {int(curve.steps[-1]):,}'
  i = common[-1]
  value = series[int(curve.steps[i])]
  place = 'below' if value < curve.low[i] else 'above' if value > curve.high[i] else 'within'
  inside = sum(curve.low[k] <= series[int(curve.steps[k])] <= curve.high[k] for k in common)
  return (
    f'{figure} is {value:.4g} at step {int(curve.steps[i]):,}, {place} {curve.low[i]:.4g} to '
    f'{curve.high[i]:.4g} (mean {curve.mean[i]:.4g}); within the band at {inside} of '
    f'{len(common)} steps'
  )


def curve_of(series: Sequence[Series], band: str) -> Curve:
  """Returns the mean and the band of several seeds, at the steps that all of them have.

  Raises:
    UserError: there is no such step.
  """
  steps = sorted(set.intersection(*(set(each) for each in series)))
  if not steps:
    raise UserError('the runs have no step of the log in common; give runs with one log_every')
  values = np.array([[each[step] for step in steps] for each in series])
  mean = values.mean(axis=0)
  low, high = values.min(axis=0), values.max(axis=0)
  if band == DEVIATION:
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(steps))
    low, high = mean - deviation, mean + deviation
  return Curve(np.array(steps), mean, low, high, len(values))


def to_csv(curves: Mapping[str, Curve]) -> str:
  """Returns curves as a table with a row for each figure and step, six digits."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(_HEADER)
  for figure, curve in curves.items():
    for step, *numbers in zip(curve.steps, curve.mean, curve.low, curve.high):
      writer.writerow([figure, step, *(f'{number:.6g}' for number in numbers), curve.seeds])
  return text.getvalue()


def from_csv(table: str) -> dict[str, Curve]:
  """Reads what `to_csv` wrote.

  Raises:
    UserError: the file is missing or of another form; names the line.
  """
  try:
    text = files.named_path(table, '--against').read_text()
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'--against={table} cannot be read ({reason}); give a CSV of curves') from error
  return from_csv_text(text, table)


def from_csv_text(text: str, table: str = '') -> dict[str, Curve]:
  """Returns the curves in the text of such a file; see `from_csv`."""
  try:
    rows = [*csv.reader(io.StringIO(text))]
  except csv.Error:
    rows = []
  if not rows or tuple(rows[0]) != _HEADER or len(rows) < 2:
    raise UserError(
      f'--against={table} is no CSV of curves, whose first line is {",".join(_HEADER)} with rows '
      'below it; write one with --plot=FIGURE --csv=FILE.csv'
    )
  found: dict[str, list[list[float]]] = {}
  for number, row in enumerate(rows[1:], 2):
    try:
      figure, *cells = row
      values = [float(cell) for cell in cells]
      if len(values) != len(_HEADER) - 1 or not np.isfinite(values).all():
        raise ValueError
    except ValueError:
      raise UserError(f'--against={table}: line {number} holds no step of a curve') from None
    found.setdefault(figure, []).append(values)
  curves = {}
  for figure, held in found.items():
    steps, mean, low, high, seeds = np.array(sorted(held)).T
    curves[figure] = Curve(steps.astype(np.int64), mean, low, high, int(seeds[0]))
  return curves


# --- runs -----------------------------------------------------------------------------------------


def _records(folders: Sequence[str]) -> list[Record]:
  names = dict.fromkeys(name for folder in folders for name in find_runs(folder))
  if not names:
    raise UserError(f'there is no run in {", ".join(folders)}; give the folder of one')
  return [read_record(name) for name in names]


def _check_same(records: Sequence[Record]) -> None:
  """Raises UserError where runs differ in more than what seeds of one curve may differ in."""
  first = records[0]
  for other in records[1:]:
    # What computes the figures is part of the evaluators, which a run may change on its way.
    changed = [
      line
      for key, line in run.differences(first.config, other.config).items()
      if not any(key == free or key.startswith(f'{free}.') for free in _OF_SEEDS)
    ]
    if changed:
      raise UserError(
        f'{first.name} and {other.name} are no seeds of one curve: {changed[0]}; give runs of one '
        'config, or leave --csv out to draw a line for each'
      )


def _series(record: Record, figure: str, required: bool = True) -> list[Series]:
  """The values by step of every lane of a run; none where it has no such figure.

  Raises:
    UserError: it has none, and it is `required`.
  """
  name = record.logged_name(figure)
  keys = dict.fromkeys(key for line in record.lines for key in line)
  lanes = [
    key for key in keys if key.startswith(f'{name}/') and _LANE.fullmatch(key[len(name) + 1 :])
  ]
  found = [
    {int(line['step']): float(line[key]) for line in record.lines if is_number(line.get(key))}
    for key in lanes or [name]
  ]
  series = [each for each in found if each]
  if required and not series:
    raise UserError(
      f'--plot={figure}: {record.name} has no such figure{nearest(figure, record.figures)}; it '
      f'has: {", ".join(record.figures) or "none"}'
    )
  return series


def _known(figure: str, published: Mapping[str, Curve], table: str) -> str:
  longer = [name for name in published if name.startswith(f'{figure}_')]
  if figure in published or len(longer) == 1:
    return figure if figure in published else longer[0]
  raise UserError(
    f'--plot={figure}: {table} has no such figure{nearest(figure, published)}; it has: '
    f'{", ".join(published)}'
  )


# --- pictures -------------------------------------------------------------------------------------


def _counted(curves: Mapping[str, Curve]) -> str:
  seeds = max(curve.seeds for curve in curves.values())
  return f'{seeds} seed' + 's' * (seeds > 1)


def _seeds_shown(curves: Mapping[str, Curve], band: str) -> str:
  if max(curve.seeds for curve in curves.values()) == 1:
    return '1 seed'
  ends = 'least to largest' if band == MIN_MAX else '± standard deviation'
  return f'mean of {_counted(curves)}, {ends}'


def _panels(
  curves: Mapping[str, Curve], runs: Mapping[str, Mapping[str, Sequence[Series]]], title: str
) -> Figure:
  """A panel for each figure: the band in grey with its mean, and the lines of runs over it."""
  from matplotlib.figure import Figure

  columns = min(len(curves), 2)
  rows = -(-len(curves) // columns)
  figure = Figure(figsize=(4.6 * columns, 0.5 + 2.9 * rows), dpi=100, layout='constrained')
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes, (name, curve) in zip(panels, curves.items()):
    axes.fill_between(curve.steps, curve.low, curve.high, color=_GREY, linewidth=0)
    marker = 'o' if len(curve.steps) == 1 else None
    axes.plot(curve.steps, curve.mean, color=_DARK, linewidth=1, marker=marker, label=title)
    for number, (run_name, series) in enumerate(runs.get(name, {}).items()):
      for lane, one in enumerate(series):
        steps = sorted(one)
        axes.plot(
          steps,
          [one[step] for step in steps],
          color=f'C{number}' if number else _BLUE,
          linewidth=1.3,
          marker='o' if len(steps) == 1 else None,
          label=run_name if lane == 0 else None,
        )
    axes.set_title(name, fontsize=9, parse_math=False)
    axes.set_xlabel('step', fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color='0.92')
    axes.set_axisbelow(True)
  for axes in panels[len(curves) :]:
    axes.set_visible(False)
  lines, labels = panels[0].get_legend_handles_labels()
  legend = figure.legend(lines, labels, loc='outside lower left', fontsize=8, ncols=2)
  for text in legend.get_texts():
    text.set_parse_math(False)
  return figure


def _png(figure: Figure) -> bytes:
  from PIL import Image

  from metrics import charts

  buffer = io.BytesIO()
  image = Image.fromarray(charts.to_pixels(figure)).quantize(_COLOURS, dither=Image.Dither.NONE)
  image.save(buffer, format='PNG', optimize=True)
  return buffer.getvalue()


def _prepare(out: str, table: str) -> None:
  """Checks the names of the files to write, before anything is drawn."""
  for place, flag, end in ((out, '--out', '.png'), (table, '--csv', '.csv')):
    if place and not place.endswith(end):
      raise UserError(f'{flag}={place} must end in {end}')
  files.prepare_out(out)


def _write(place: str, flag: str, content: bytes) -> None:
  try:
    files.write_bytes(files.named_path(place, flag), content)
  except OSError as error:
    raise UserError(
      f'cannot write {place} ({error.strerror or error}); choose another {flag}'
    ) from error
