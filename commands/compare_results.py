"""Evaluated runs side by side: groups of seeds, means with intervals, a table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from commands.list_runs import aligned
from commands.result_files import Lane, Recorded, Result, expand, read_result
from commands.spreads import spread
from engine import run
from errors import UserError

# Columns of a terminal.
_WIDTH = 100
# Half the width of a 95 % interval of a mean over many examples, in standard errors.
_NORMAL = 1.959964
# Options in which the trainings of a group may differ.
_WITHIN_A_GROUP = ('train.seed', 'seeds', *run.WITHOUT_EFFECT)
# Options of evaluators that do not change what a figure means.
_NOT_OF_THE_FIGURE = ('every', 'batch_size', 'average', 'metrics')


class Estimate(NamedTuple):
  """A figure of a group of trainings.

  Attributes:
    mean: over the trainings; None where it is not finite.
    interval: 95 %, of the mean over trainings where there are several, else that of the figure of
      the one training; None where it has none.
    number: of trainings.
  """

  mean: float | None
  interval: tuple[float, float] | None
  number: int

  @property
  def half_width(self) -> float | None:
    return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


class Group(NamedTuple):
  """The trainings of one config, which differ in their seeds.

  Attributes:
    title: a name for the head of a table.
    results: of the runs.
    estimates: by the name of the figure.
  """

  title: str
  results: Sequence[Result]
  estimates: Mapping[str, Estimate]

  @property
  def lanes(self) -> list[Lane]:
    return [lane for result in self.results for lane in result.lanes]

  @property
  def description(self) -> str:
    """Its runs, objective, data and seeds in a line."""
    first = self.results[0]
    seeds = sorted(lane.seed for lane in self.lanes)
    steps = sorted({lane.step for lane in self.lanes})
    shown = ', '.join(map(str, seeds[:8])) + (', …' if len(seeds) > 8 else '')
    trained = f'seed {shown}' if len(seeds) == 1 else f'{len(seeds)} seeds ({shown})'
    at = f'step {steps[0]:,}' if len(steps) == 1 else f'steps {steps[0]:,} to {steps[-1]:,}'
    runs = ', '.join(result.run for result in self.results)
    what = f'{first.config["objective"]["name"]} {first.config["data"]["name"]}'
    return f'{runs}: {what}, {trained}, {at}'


def compare_results(folders: Sequence[str]) -> list[Group]:
  """Reads the figures of runs, checks that they can be compared, and prints them side by side.

  Args:
    folders: of runs, above runs, or patterns.

  Returns:
    The groups that the table shows.

  Raises:
    UserError: a run was not evaluated, or two of them cannot be compared.
  """
  groups = group_results([read_result(folder) for folder in expand(folders)])
  print(table(groups))
  return groups


def group_results(results: Sequence[Result]) -> list[Group]:
  """Groups the results whose configs differ in nothing but seeds.

  Raises:
    UserError: figures of one name were computed from something else, no figure is common, or a
      training would count twice.
  """
  for at, result in enumerate(results):
    for other in results[:at]:
      _check_comparable(other, result)
  grouped: dict[str, list[Result]] = {}
  for result in results:
    grouped.setdefault(_config_key(result), []).append(result)
  for members in grouped.values():
    _check_seeds(members)
  titles = _titles([[result.run for result in members] for members in grouped.values()])
  groups = [
    Group(title, members, _estimates([lane for each in members for lane in each.lanes]))
    for title, members in zip(titles, grouped.values())
  ]
  common = set.intersection(*({*group.estimates} for group in groups))
  if not common:
    one, other = _without_common(groups)
    raise UserError(
      f'{one.run} and {other.run} have no figure in common ({_some(one.names)} and '
      f'{_some(other.names)}); compare runs with the same evaluators'
    )
  return groups


def _without_common(groups: Sequence[Group]) -> tuple[Result, Result]:
  """Two runs without a common figure; of three groups any two can have some."""
  first = groups[0]
  for group in groups[1:]:
    if not {*group.estimates} & {*first.estimates}:
      return first.results[0], group.results[0]
  return first.results[0], groups[-1].results[0]


def _some(names: Sequence[str]) -> str:
  return ', '.join(names[:3]) + (', …' if len(names) > 3 else '')


def _check_comparable(one: Result, other: Result) -> None:
  """Raises UserError where figures of the same name were computed from something else."""
  provenances = [result.made_by['provenance'] for result in (one, other)]
  for name in [name for name in provenances[0] if name in provenances[1]]:
    meanings = [_meaning(result, name) for result in (one, other)]
    changed = run.differences(*meanings)
    # Two evaluators may have other metrics; those of one name must be the same.
    metrics = [provenance[name].get('metrics', {}) for provenance in provenances]
    for key in [key for key in metrics[0] if key in metrics[1]]:
      changed |= run.differences(metrics[0][key], metrics[1][key], f'metrics.{key}')
    if changed:
      raise UserError(
        f'{one.run} and {other.run} cannot be compared: their figures {name}/… were computed from '
        f'something else ({"; ".join([*changed.values()][:3])}); evaluate both alike, or leave one '
        'out'
      )


def _meaning(result: Result, name: str) -> dict[str, Any]:
  """The options and the provenance that an evaluator's figures depend on beside the model."""
  options = result.made_by['evaluators'][name]
  provenance = result.made_by['provenance'][name]
  return {
    'options': {key: value for key, value in options.items() if key not in _NOT_OF_THE_FIGURE},
    **{key: value for key, value in provenance.items() if key != 'metrics'},
  }


def _config_key(result: Result) -> str:
  """The key of a group of runs: their config without seeds and options of no effect, as JSON."""
  config = json.loads(json.dumps(result.config))
  for place in _WITHIN_A_GROUP:
    section, _, option = place.rpartition('.')
    (config[section] if section else config).pop(option, None)
  by_figure = result.made_by['checkpoint'] == 'best' or config['train'].get('patience')
  # Of trainings that each stopped at their best, the steps differ.
  steps = [] if by_figure else sorted({lane.step for lane in result.lanes})
  averages = {name: each.get('average') for name, each in result.made_by['evaluators'].items()}
  # Evaluators that training ran say nothing of what was trained.
  config.pop('evaluators', None)
  return json.dumps([config, steps, averages], sort_keys=True)


def _check_seeds(results: Sequence[Result]) -> None:
  """Raises UserError where a training is among the results twice, and would count twice."""
  found: dict[tuple[str, int], Result] = {}
  for result in results:
    for lane in result.lanes:
      # Folds of one run have one seed and other examples.
      key = (lane.label.partition('_')[0], lane.seed)
      other = found.setdefault(key, result)
      if other is not result:
        raise UserError(
          f'{other.run} and {result.run} are the same training, of one config and seed '
          f'{lane.seed}; leave one of them out'
        )


def _titles(groups: Sequence[Sequence[str]]) -> list[str]:
  """Short names of groups of runs: that of the first folder, with how many more there are.

  Letters where these are long or repeat.
  """
  names = [
    runs[0].rstrip('/').rpartition('/')[2] + (f' +{len(runs) - 1}' if len(runs) > 1 else '')
    for runs in groups
  ]
  if len({*names}) == len(names) and max(map(len, names)) <= 20:
    return names
  return [_letter(number) for number in range(len(groups))]


def _letter(number: int) -> str:
  """A, B, …, Z, AA, AB, …"""
  rest, last = divmod(number, 26)
  return (_letter(rest - 1) if rest else '') + chr(ord('A') + last)


def _estimates(lanes: Sequence[Lane]) -> dict[str, Estimate]:
  found = {}
  for name in dict.fromkeys(name for lane in lanes for name in lane.figures):
    figures = [lane.figures[name] for lane in lanes if name in lane.figures]
    values = [figure.value for figure in figures if figure.value is not None]
    if len(values) < len(figures):
      found[name] = Estimate(None, None, len(figures))
    elif len(values) == 1:
      found[name] = Estimate(values[0], _own_interval(figures[0]), 1)
    else:
      over = spread(values)
      found[name] = Estimate(over.mean, over.interval, len(values))
  return found


def _own_interval(figure: Recorded) -> tuple[float, float] | None:
  """The interval of a figure of one training: its own, or that of a mean over examples."""
  if figure.interval is not None or figure.error is None or figure.value is None:
    return figure.interval
  half = _NORMAL * figure.error
  return figure.value - half, figure.value + half


def table(groups: Sequence[Group], width: int = _WIDTH) -> str:
  """Returns the figures of groups for a terminal: below each other where columns do not fit.

  Args:
    groups: a column each.
    width: columns of the terminal.
  """
  names = [*dict.fromkeys(name for group in groups for name in group.estimates)]
  marks = better(groups)
  cells = {
    group.title: [
      written(group.estimates.get(name)) + ('*' if (name, group.title) in marks else '')
      for name in names
    ]
    for group in groups
  }
  lines = [f'{group.title}  {group.description}' for group in groups]
  first = max(map(len, ('figure', *names)))
  columns: list[str] = []
  blocks: list[list[str]] = []
  taken = first
  for title, column in cells.items():
    wide = max(map(len, (title, *column))) + 2
    if columns and taken + wide > width:
      blocks.append(columns)
      columns, taken = [], first
    columns.append(title)
    taken += wide
  blocks.append(columns)
  for block in blocks:
    rows = [('figure', *block), *zip(names, *(cells[title] for title in block))]
    lines += ['', *aligned(rows)]
  return '\n'.join([*lines, '', *explanations(groups, bool(marks)), ''])


def explanations(groups: Sequence[Group], marked: bool) -> list[str]:
  """Returns what the intervals of a table are of, in a line each."""
  numbers = {estimate.number for group in groups for estimate in group.estimates.values()}
  lines = []
  if any(number > 1 for number in numbers):
    lines.append("± 95 % interval of the mean over seeds (Student's t)")
  if 1 in numbers:
    lines.append('± 95 % interval of one training: over its samples (jackknife) or test examples')
  if marked:
    lines.append('* best by the figure that the configs rank checkpoints by, intervals apart')
  return lines


def written(estimate: Estimate | None) -> str:
  """Returns e.g. '0.4123 ± 0.0021'; '–' where there is no figure."""
  if estimate is None:
    return '–'
  if estimate.mean is None:
    return 'not finite'
  half = estimate.half_width
  if half is None:
    return f'{estimate.mean:.5g}'
  return f'{estimate.mean:.5g} ± {half:.2g}'


def better(groups: Sequence[Group]) -> set[tuple[str, str]]:
  """Returns (figure, title) where a group is better than all others, their intervals apart.

  Only of figures whose direction is known: those that the configs rank checkpoints by.
  """
  rankings = {
    (section.get('best', ''), section.get('best_mode', ''))
    for group in groups
    for section in [group.results[0].config.get('checkpoint', {})]
  }
  if len(rankings) > 1 or len(groups) < 2:
    return set()
  ((figure, mode),) = rankings
  names = {name for group in groups for name in group.estimates}
  found = set()
  for name in names:
    # Of samples `samples/fd` stands for the whole name.
    if not figure or not (name == figure or name.startswith(f'{figure}_')):
      continue
    # An interval over samples says nothing of other seeds, and is not compared with one over them.
    kinds = {group.estimates[name].number > 1 for group in groups if name in group.estimates}
    if len(kinds) > 1:
      continue
    sign = 1 if mode == 'min' else -1
    ends = {
      group.title: sorted(sign * end for end in estimate.interval)
      for group in groups
      if (estimate := group.estimates.get(name)) and estimate.interval is not None
    }
    for title, (_, worst) in ends.items():
      others = [low for other, (low, _) in ends.items() if other != title]
      if len(ends) == len(groups) and all(worst < low for low in others):
        found.add((name, title))
  return found
