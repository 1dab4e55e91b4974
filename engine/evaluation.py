"""The evaluators of a session, opened from the section `config.evaluators`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from data.examples import Examples
from data.section import Data, check_features, open_evaluated, open_testing
from data.spec import Spec
from engine.averages import Average
from engine.build import call, resolve, to_plain
from engine.evaluation_cost import Stopwatch, cost_note
from engine.evaluators.base import Evaluator, Progress, Results
from engine.evaluators.batches import Split
from engine.session import Session
from engine.state import Weights, averaged_variables
from errors import UserError, nearest

Value = TypeVar('Value')


class Evaluators:
  """Evaluators by name, and when each is due.

  Args:
    evaluators: by name.
    averages: of the run.
    refused: why evaluate.py will refuse some that training does not run, by name.
  """

  def __init__(
    self,
    evaluators: Mapping[str, Evaluator],
    averages: Mapping[str, Average],
    refused: Mapping[str, str],
  ):
    self._evaluators, self._averages, self.refused = evaluators, averages, refused

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self._evaluators)

  @property
  def intervals(self) -> tuple[int, ...]:
    """The steps between evaluations of those that training runs."""
    return tuple(each.every for each in self._evaluators.values() if each.every)

  def due(self, step: int, last: bool) -> tuple[str, ...]:
    """Returns the names of those to run after `step`; all that training runs at the `last` one."""
    return tuple(
      name
      for name, each in self._evaluators.items()
      if each.every and (last or step % each.every == 0)
    )

  def number(self, name: str) -> int:
    """Returns how many examples, samples or calls an evaluation takes, for its progress."""
    return self._evaluators[name].number

  def cost_note(self, name: str, seconds: Stopwatch, pace: float, lanes: int) -> str | None:
    """Returns a sentence where an evaluation that has just ended takes much of the training time.

    Args:
      name: of the evaluator.
      seconds: that timed the evaluation of one lane.
      pace: steps per second of training alone.
      lanes: how many are evaluated.
    """
    each = self._evaluators[name]
    taken = seconds.estimate(each.repeated_number)
    if taken is None:
      return None
    return cost_note(each.where, lanes * taken, each.every, pace, each.repeated_number, each.fewer)

  def spec(self, name: str) -> Spec:
    """Returns the split that examples come from, or that samples are compared with."""
    return self._evaluators[name].spec

  def provenance(self, name: str) -> dict[str, Any]:
    """Returns what an evaluator's figures are computed from, and whether they can be repeated."""
    evaluator = self._evaluators[name]
    return {**evaluator.provenance, 'repeatable': evaluator.repeatable}

  def ranking_figure(self, figure: str) -> str:
    """Returns the whole name of the figure that ranks checkpoints, checked as far as it is known.

    Args:
      figure: `EVALUATOR/METRIC`, of samples also without the extractor, count and reference that
        follow in the figure's name; '' for none.

    Raises:
      UserError: training runs no such evaluator, or it has no such figure.
    """
    if not figure:
      return ''
    scheduled = {name: each for name, each in self._evaluators.items() if each.every}
    name = figure.split('/')[0]
    if name in self._evaluators and name not in scheduled:
      raise UserError(
        f'config.checkpoint.best={figure} is known in training only where '
        f'config.evaluators.{name}.every is above 0'
      )
    if name not in scheduled:
      raise UserError(
        f'config.checkpoint.best={figure}: training runs no evaluator "{name}"'
        f'{nearest(name, scheduled)}; of config.evaluators it runs: '
        f'{", ".join(scheduled) or "none"}'
      )
    names = scheduled[name].figure_names
    if names is None:
      return figure
    known = {f'{name}/{each}': f'{name}/{each}' for each in names}
    beginning = [each for each in known if each.startswith(f'{figure}_')]
    if figure not in known and len(beginning) == 1:
      return beginning[0]
    if figure in known:
      return figure
    raise UserError(
      f'config.checkpoint.best={figure} is unknown{nearest(figure, known)}; of '
      f'config.evaluators.{name} and its metrics there are: {", ".join(known) or "none"}'
    )

  def evaluate(
    self,
    name: str,
    weights: Weights,
    key: jax.Array,
    details: bool = False,
    progress: Progress | None = None,
  ) -> Results:
    """Evaluates the weights of one lane; everything is named `EVALUATOR/NAME`.

    Args:
      name: of the evaluator.
      weights: of one lane.
      key: the lane's.
      details: whether tables, pictures and figures per class are needed, not headlines alone.
      progress: called after every batch, with how many of `number` are done.
    """
    evaluator = self._evaluators[name]
    variables = averaged_variables(weights, self._averages, evaluator.average)
    results = evaluator.evaluate(variables, key, details, progress)
    return Results(
      _prefixed(name, results.figures),
      _prefixed(name, results.tables),
      _prefixed(name, results.pictures),
    )


def check_best_mode(figure: str, mode: str) -> None:
  """Raises UserError where `mode` would keep the worst checkpoint by a figure that is well known.

  Args:
    figure: `EVALUATOR/METRIC`, or '' for none.
    mode: 'min' or 'max'.
  """
  name = figure.partition('/')[2]
  # A Fréchet distance has the extractor and the count in its name.
  right = 'min' if name.startswith('fd_') else _BEST_MODES.get(name, mode)
  if right != mode:
    best = {'min': 'smallest', 'max': 'largest'}
    raise UserError(
      f'config.checkpoint.best_mode={mode} keeps the {best[mode]} {figure}, of which the '
      f'{best[right]} is the best; set it to {right}'
    )


# Of the figures of which there is no doubt.
_BEST_MODES = {
  **dict.fromkeys(
    ('loss', 'perplexity', 'bits_per_byte', 'bits_per_dim', 'nll', 'mse', 'rmse', 'mae', 'ece'),
    'min',
  ),
  **dict.fromkeys(
    ('accuracy', 'f1', 'precision', 'recall', 'roc_auc', 'r2', 'elbo', 'iwae_bound'), 'max'
  ),
}


def _prefixed(name: str, results: Mapping[str, Value]) -> dict[str, Value]:
  return {f'{name}/{key}': value for key, value in results.items()}


def open_evaluators(session: Session, split: str = '', unscheduled: bool = False) -> Evaluators:
  """Opens `config.evaluators`, checks every option, and evaluates abstractly.

  Args:
    session: whose objective is evaluated.
    split: a TFDS split of the data set that is tested on, for every evaluator of examples in place
      of its own; '' for their own.
    unscheduled: whether those that training does not run are evaluated abstractly too.

  Raises:
    UserError: an option is unknown, missing or out of range, or an evaluation would be refused.
  """
  opened_splits: dict[str, Split] = {}

  def open_own(where: str, name: str) -> Split:
    """Opens a split that an evaluator names, once for all of them."""
    if not name:
      raise UserError(f"{where}= names no split; give 'test', 'train' or a TFDS split")
    if name not in opened_splits:
      examples = functools.partial(open_evaluated, split=name, where=where)
      opened_splits[name] = _split(session, examples)
    return opened_splits[name]

  sections = to_plain(session.config.evaluators)
  if split and not any('split' in section for section in sections.values()):
    raise UserError(
      f'--split={split} has no effect, since no evaluator of this run reads a split of its own '
      f'({", ".join(sections) or "there is none"}); leave it out'
    )
  requested = _split(session, functools.partial(open_testing, split=split))
  players = {player.name: None for player in session.objective.players}
  opened = {}
  for name, section in sections.items():
    where = f'config.evaluators.{name}'
    if name in players:
      raise UserError(f'{where} has the name of a player, so their figures would; rename it')
    kind = resolve(section['name'], 'engine.evaluators', f'{where}.name')
    options = {key: value for key, value in section.items() if key != 'name'}
    # Samples are compared with their own reference: they have no option "split".
    key = 'split' if 'split' in options else 'reference'
    own = functools.partial(open_own, f'{where}.{key}')
    open_split = (lambda _: requested) if split and key == 'split' else own
    opened[name] = call(kind, options, where, name, session, open_split)
  refused = {}
  with session.module_errors():
    for name, each in opened.items():
      if unscheduled:
        _check_among(opened, name)
        continue
      if each.every:
        each.check()
        continue
      try:
        each.check_options()
      except UserError as error:
        refused[name] = str(error)
  return Evaluators(opened, session.averages, refused)


def _check_among(opened: Mapping[str, Evaluator], name: str) -> None:
  """Checks an evaluator of `evaluate.py`, which can be run without those that are refused."""
  try:
    opened[name].check()
  except UserError as error:
    others = [each for each in opened if each != name]
    if not others:
      raise
    raise UserError(f'{error}; or run the others with --only={",".join(others)}') from error


def open_lane_evaluators(
  session: Session, split: str = '', unscheduled: bool = False
) -> list[Evaluators]:
  """Opens the evaluators of every lane: the same ones, or where lanes are folds each fold's own."""
  number = session.lanes.number
  if not session.data.folds or number == 1:
    return [open_evaluators(session, split, unscheduled)] * number
  folds = [
    session._replace(data=dataclasses.replace(session.data, fold=fold)) for fold in range(number)
  ]
  return [open_evaluators(fold, split, unscheduled) for fold in folds]


def _split(session: Session, open_examples: Callable[[Data, Spec], Examples]) -> Split:
  """A split that holds what the run was trained on, or is refused when it is opened."""

  def examples() -> Examples:
    found = open_examples(session.data, session.spec)
    check_features(found, session.spec)
    return found

  return Split(examples, session.data.resident_mb)
