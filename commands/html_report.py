"""A report of evaluated runs as one HTML file, which needs no network, no script and no other file.

Everything that comes from a run, a config or a command line is escaped; pictures are data URIs, and
the page's own security policy forbids the browser to load anything else.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import files
from commands.compare_results import (
  Estimate,
  Group,
  better,
  explanations,
  group_results,
  written,
)
from commands.result_files import Result, as_result, read_content
from commands.run_records import Record, is_number, read_record
from errors import UserError

if TYPE_CHECKING:
  from matplotlib.figure import Figure as ChartFigure

# Charts, sample grids of a run and points of a curve, at most.
_MOST_CHARTS, _MOST_GRIDS, _MOST_POINTS = 60, 4, 1000
# Characters of sampled texts that are shown of a run.
_LONGEST_TEXT = 4000
# What a line of metrics.jsonl has beside figures.
_NO_FIGURES = ('step', 'wall_time', 'steps_per_second')

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 1180px; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: .25rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p, li { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #e4e4e4;
  vertical-align: middle; }
td.number { white-space: nowrap; }
table.facts th { font-weight: 600; vertical-align: top; white-space: nowrap; }
table.facts td { overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 1rem; }
.charts img { width: 100%; }
.charts figcaption { color: #1b1b1b; font-weight: 600; }
ul.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; }
td svg { display: block; }
.grids { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; }
.grids img { width: 360px; }
.neighbours img { max-width: 100%; }
figcaption, .note { color: #555; font-size: .9rem; overflow-wrap: anywhere; }
pre { background: #f5f5f5; padding: .75rem; overflow-x: auto; font-size: .82rem; }
pre.text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow-y: auto; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def check_out(out: str) -> None:
  """Raises UserError where a report cannot be written to the file."""
  if not out.endswith('.html'):
    raise UserError(f'--report={out} must end in .html')
  files.prepare_out(out, '--report')


def write_report(groups: Sequence[Group], out: str) -> None:
  """Writes the report of groups of runs.

  Args:
    groups: as `commands.compare_results.group_results` makes them.
    out: an .html file.

  Raises:
    UserError: it cannot be written.
  """
  page = _page(groups)
  try:
    files.write_text(out, page)
  except OSError as error:
    reason = files.why_not_written(files.path(out).parent, error)
    raise UserError(f'cannot write --report={out}: {reason}') from error
  print(f'report   {out} ({len(page.encode()) / 2**20:.1f} MiB)')


def report_run(workdir: str, metrics: str, out: str) -> None:
  """Writes the report of one run that was just evaluated, in the first of several processes.

  Args:
    workdir: the run's folder.
    metrics: the file of its figures.
    out: an .html file.

  Raises:
    UserError: it cannot be written.
  """
  import jax

  if jax.process_index() > 0:
    return
  again = f'python evaluate.py --workdir={workdir}'
  result = as_result(read_content(metrics), workdir, metrics, again)
  write_report(group_results([result]), out)


def _page(groups: Sequence[Group]) -> str:
  runs = [result for group in groups for result in group.results]
  title = runs[0].run if len(runs) == 1 else f'{len(runs)} runs'
  date = max(result.made_by['date'] for result in runs)
  parts = [
    f'<h1>Evaluation of {_text(title)}</h1>',
    f'<p class="note">Figures of {_text(date)}</p>',
    '<ul>',
    *(f'<li><b>{_text(g.title)}</b> {_text(g.description)}</li>' for g in groups),
    '</ul>',
    '<h2>Figures</h2>',
    *_figures(groups),
    *_curves(runs),
    *_samples(runs),
    *_neighbours(groups),
    '<h2>What made the figures</h2>',
    *(line for result in runs for line in _facts(result)),
  ]
  head = (
    f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">'
    f'<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>Evaluation of {_text(title)}</title><style>{_STYLE}</style></head><body>'
  )
  return '\n'.join([head, *parts, '</body></html>\n'])


def _text(value: Any) -> str:
  """Text as HTML, in elements and in attributes."""
  return html.escape(str(value))


# --- figures


def _figures(groups: Sequence[Group]) -> Iterator[str]:
  names = [*dict.fromkeys(name for group in groups for name in group.estimates)]
  marks = better(groups)
  beside = len(groups) > 1
  heads = ''.join(f'<th>{_text(group.title)}</th>' for group in groups)
  yield '<div class="wide"><table>'
  yield f'<tr><th>figure</th>{heads}{"<th>95 % intervals</th>" if beside else ""}</tr>'
  for name in names:
    estimates = [group.estimates.get(name) for group in groups]
    cells = ''.join(
      f'<td class="number">{_text(written(estimate))}'
      f'{"*" if (name, group.title) in marks else ""}</td>'
      for group, estimate in zip(groups, estimates)
    )
    drawn = f'<td>{_whiskers(estimates)}</td>' if beside else ''
    yield f'<tr><td>{_text(name)}</td>{cells}{drawn}</tr>'
  yield '</table></div>'
  notes = explanations(groups, bool(marks))
  if beside:
    notes.append('Drawn intervals: the columns from left to right are lines from top to bottom.')
  yield f'<p class="note">{"<br>".join(map(_text, notes))}</p>'


def _whiskers(estimates: Sequence[Estimate | None]) -> str:
  """The means and intervals of a figure on one scale, a line for each group, as SVG."""
  ends = [
    end
    for each in estimates
    if each is not None and each.mean is not None
    for end in (each.mean, *(each.interval or ()))
  ]
  if not ends:
    return ''
  low, high = min(ends), max(ends)
  width, line, edge = 180, 12, 6

  def x(value: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(edge + share * (width - 2 * edge), 2)

  shapes = []
  for row, each in enumerate(estimates):
    if each is None or each.mean is None:
      continue
    y = row * line + line / 2
    if each.interval is not None:
      left, right = map(x, each.interval)
      shapes.append(f'<path d="M{left} {y}H{right}" stroke="#0072b2" stroke-width="2"/>')
    shapes.append(f'<circle cx="{x(each.mean)}" cy="{y}" r="3.5" fill="#d55e00"/>')
  height = line * len(estimates)
  return f'<svg width="{width}" height="{height}" role="img">{"".join(shapes)}</svg>'


# --- curves


def _curves(results: Sequence[Result]) -> Iterator[str]:
  records, notes = _records(results)
  names = _logged(records)
  yield '<h2>Curves</h2>'
  yield from (f'<p class="note">{_text(note)}</p>' for note in notes)
  if not names:
    yield '<p class="note">No run has logged figures.</p>'
    return
  if len(names) > _MOST_CHARTS:
    yield f'<p class="note">The first {_MOST_CHARTS} of {len(names)} logged figures.</p>'
  yield '<p class="note">Bands are ± one standard deviation over the lanes of a run.</p>'
  drawn = [(name, _chart(records, name)) for name in names[:_MOST_CHARTS]]
  if len(records) > 1:
    yield _legend(drawn[0][1], [record.name for record in records])
  yield '<div class="charts">'
  for name, chart in drawn:
    caption = f'<figcaption>{_text(name)}</figcaption>'
    yield f'<figure>{caption}<img alt="by step" src="{_svg(chart)}"></figure>'
  yield '</div>'


def _records(results: Sequence[Result]) -> tuple[list[Record], list[str]]:
  """The records of runs, and what is wrong with those that cannot be read."""
  records, notes = [], []
  for result in results:
    try:
      records.append(read_record(result.run))
    except UserError as error:
      notes.append(f'without {error}')
  return records, notes


def _logged(records: Sequence[Record]) -> list[str]:
  """The logged figures: those of evaluators first, without those of single lanes."""
  names = dict.fromkeys(
    name
    for record in records
    for line in record.lines
    for name, value in line.items()
    if name not in _NO_FIGURES and is_number(value)
  )
  own = [name for name in names if name.rpartition('/')[0] not in names]
  evaluators = {name for record in records for name in record.config['evaluators']}
  return sorted(own, key=lambda name: name.split('/')[0] not in evaluators)


def _chart(records: Sequence[Record], name: str) -> ChartFigure:
  """The curves of a figure, a line for each run, also where it has no point."""
  from metrics import charts

  figure = charts.curves({record.name: _curve(record, name) for record in records}, name)
  # One legend for all charts takes the place of theirs, and a caption that of the axis's name.
  for legend in figure.legends:
    legend.remove()
  figure.set_size_inches(6, 3.6)
  (axes,) = figure.axes
  axes.set_ylabel('')
  return figure


def _svg(figure: ChartFigure) -> str:
  """A chart as the data URI of an SVG."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format='svg', metadata={'Date': None, 'Creator': None})
  return _data_uri('image/svg+xml', buffer.getvalue())


# How SVG dashes the styles of lines.
_DASHES = {'-': 'none', '--': '7 3', ':': '2 2', '-.': '7 2 2 2'}


def _legend(figure: ChartFigure, names: Sequence[str]) -> str:
  """The lines of a chart with the names of the runs that they are of."""
  entries = []
  for line, name in zip(figure.axes[0].lines, names):
    dashes = _DASHES[line.get_linestyle()]
    stroke = f'stroke="{_text(line.get_color())}" stroke-width="3" stroke-dasharray="{dashes}"'
    entries.append(
      f'<li><svg width="30" height="10"><path d="M0 5H30" {stroke}/></svg> {_text(name)}</li>'
    )
  return f'<ul class="legend">{"".join(entries)}</ul>'


def _curve(record: Record, name: str) -> tuple[list[float], list[float], list[float]]:
  points = [line for line in record.lines if is_number(line.get(name))]
  # A longer curve looks the same, and makes the file large.
  points = points[:: -(-len(points) // _MOST_POINTS) or 1]
  deviations = [line.get(f'{name}/sd') for line in points]
  return (
    [line['step'] for line in points],
    [line[name] for line in points],
    [value if is_number(value) else float('nan') for value in deviations],
  )


def _data_uri(kind: str, content: bytes) -> str:
  return f'data:{kind};base64,{base64.b64encode(content).decode()}'


# --- samples


def _samples(results: Sequence[Result]) -> Iterator[str]:
  found = [(result, _newest_samples(result.run)) for result in results]
  if not any(paths for _, paths in found):
    return
  yield '<h2>Samples</h2>'
  for result, paths in found:
    shown = [line for path in paths[:_MOST_GRIDS] for line in _sample(path)]
    if shown:
      yield f'<h3>{_text(result.run)}</h3>'
      yield from ('<div class="grids">', *shown, '</div>')
    if len(paths) > _MOST_GRIDS:
      yield f'<p class="note">The first {_MOST_GRIDS} of {len(paths)} lanes.</p>'


def _newest_samples(run: str) -> list[files.Path]:
  """The files of the newest step in the folder of samples, one for each lane."""
  try:
    entries = files.entries(files.path(run) / 'samples')
  except OSError:
    return []
  kept = [each for each in entries if each.suffix in ('.png', '.txt') and '_' in each.stem]
  steps = [each.stem.split('_')[1] for each in kept]
  return [each for each, step in zip(kept, steps) if step == max(steps)]


def _sample(path: files.Path) -> Iterator[str]:
  try:
    content = path.read_bytes()
  except OSError as error:
    yield f'<p class="note">{_text(path)} cannot be read ({_text(error.strerror or error)})</p>'
    return
  if path.suffix == '.png':
    picture = f'<img alt="samples" src="{_data_uri("image/png", content)}">'
  else:
    text = content.decode(errors='replace')
    shown = text if len(text) <= _LONGEST_TEXT else f'{text[:_LONGEST_TEXT]}…'
    picture = f'<pre class="text">{_text(shown)}</pre>'
  yield f'<figure>{picture}<figcaption>{_text(path.name)}</figcaption></figure>'


def _neighbours(groups: Sequence[Group]) -> Iterator[str]:
  """Samples and their nearest training images, of the first run of every group."""
  shown = []
  for group in groups:
    result = group.results[0]
    try:
      shown += _compared(result)
    except UserError as error:
      shown.append(f'<h3>{_text(result.run)}</h3><p class="note">Left out: {_text(error)}</p>')
  if shown:
    yield '<h2>Nearest training images</h2>'
    yield (
      '<p class="note">Samples, and below each the training images with the smallest squared '
      'difference of their pixels. A sample that equals its neighbour is a copy.</p>'
    )
    yield from shown


def _compared(result: Result) -> Iterator[str]:
  from commands.nearest_neighbours import compare_with_train
  from commands.run_records import saved_steps

  step, lane = result.lanes[0].step, result.made_by['lane'] or 0
  checkpoint = str(step) if step in saved_steps(result.run) else ''
  found = compare_with_train(result.run, checkpoint, lane)
  if found is None:
    return
  smallest = found.nearest.distances[0]
  yield f'<h3>{_text(result.run)}</h3>'
  yield '<figure class="neighbours">'
  yield f'<img alt="samples and neighbours" src="{_data_uri("image/png", _png(found.picture))}">'
  yield (
    f'<figcaption>Step {found.step:,}; {_text(found.split)}. Root mean squared difference to the '
    f'nearest: {smallest.min():.3f} to {smallest.max():.3f}.</figcaption></figure>'
  )


def _png(pixels: np.ndarray) -> bytes:
  from PIL import Image

  buffer = io.BytesIO()
  Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format='PNG')
  return buffer.getvalue()


# --- what made the figures


def _facts(result: Result) -> Iterator[str]:
  made_by = result.made_by
  facts: dict[str, Any] = {
    'command': made_by['command'],
    'date': f'{made_by["date"]}, {made_by.get("seconds", "?")} s',
    'code': f'{_commit(made_by.get("code"))}; trained by {_commit(made_by.get("trained_by"))}',
    'checkpoint': ', '.join(
      f'step {step}, fingerprint {print_}' for step, print_ in made_by['fingerprints'].items()
    ),
    'lanes': ', '.join(made_by['lanes']),
    'seed of the evaluation': made_by.get('seed'),
    'average': made_by['average'] or "each evaluator's own",
    'overrides': ', '.join(f'{k}={v}' for k, v in made_by.get('overrides', {}).items()) or 'none',
    **{f'evaluator {name}': _made_of(each) for name, each in made_by['provenance'].items()},
    'devices': f'{made_by.get("devices")}; {made_by.get("processor")}',
    'versions': ', '.join(f'{name} {each}' for name, each in made_by.get('versions', {}).items()),
  }
  yield f'<h3>{_text(result.run)}</h3>'
  yield '<table class="facts">'
  yield from (f'<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>' for k, v in facts.items())
  yield '</table>'
  config = json.dumps(result.config, indent=2, sort_keys=True)
  yield f'<details><summary>The whole config</summary><pre>{_text(config)}</pre></details>'


def _commit(code: Any) -> str:
  if not isinstance(code, Mapping):
    return 'no known commit'
  return f'commit {str(code.get("commit"))[:12]}{" with changes" if code.get("changed") else ""}'


def _made_of(provenance: Mapping[str, Any]) -> str:
  """Counts, data and extractor of an evaluator in a line."""
  counts = provenance.get('counts', {})
  parts = [', '.join(f'{count:,} {name}' for name, count in counts.items())]
  identities = provenance.get('data', {})
  parts += [f'{name} of identity {each}' for name, each in identities.items()]
  extractor = provenance.get('extractor')
  if extractor:
    checksum = f', checksum {extractor["checksum"]}' if extractor.get('checksum') else ''
    parts.append(f'features by {extractor["label"]} ({extractor["identity"]}{checksum})')
  return '; '.join(parts)
