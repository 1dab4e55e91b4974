"""The objective's per-example figures over a split, and metrics of its predictions."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from data.spec import Spec
from engine.build import build
from engine.evaluators.base import Evaluator, Figure, Progress, Results
from engine.evaluators.batches import Function, PerExample, Split, Values
from engine.evaluators.means import RunningMeans, figure_columns, is_figure, mean_figures
from errors import UserError
from metrics.base import PredictionMetric
from objectives.base import Variables
from options import option


@dataclasses.dataclass(eq=False)
class OverSplit(Evaluator):
  """The parent of evaluators of a function of each example of a split."""

  split: str = option("'test', 'train' or a TFDS split, as in `data.section.open_evaluated`.")

  @property
  @abc.abstractmethod
  def function(self) -> Function:
    """The function that is computed of each example."""

  @property
  def number(self) -> int:
    return len(self._split.examples)

  @property
  def spec(self) -> Spec:
    return self._split.examples.spec

  def fewer(self, number: int) -> str:
    # A part of a part, or of several data sets, would have to be computed.
    if any(sign in self.split for sign in '[+|'):
      return ''
    return f"'--{self.where}.split={self.split}[:{max(number, 1)}]'"

  def check(self) -> None:
    self._shapes()

  @functools.cached_property
  def _split(self) -> Split:
    return self.open_split(self.split)

  @property
  def _size(self) -> int:
    return self._rows(len(self._split.examples))

  @functools.cached_property
  def _compiled(self) -> PerExample:
    return PerExample(self.function, self.session)

  def _shapes(self) -> Values:
    return self._compiled.shapes(
      self._abstract_variables, self._abstract_key, self._split, self._size
    )

  def _columns(
    self, variables: Variables, key: jax.Array, progress: Progress | None
  ) -> dict[str, np.ndarray]:
    """The values and metadata of every example once: integers as int64, the rest as float64."""
    parts: dict[str, list[np.ndarray]] = {}
    means, done = RunningMeans(), 0
    for batch in self._compiled.over(variables, key, self._split, self._size):
      columns = {name: _widened(rows) for name, rows in merge_columns(batch).items()}
      for name, rows in columns.items():
        parts.setdefault(name, []).append(rows)
      done += len(next(iter(columns.values())))
      if progress is not None:
        progress(done, means.add(columns))
    return {name: np.concatenate(rows) for name, rows in parts.items()}


@dataclasses.dataclass(eq=False)
class Examples(OverSplit):
  """The means of what the objective's `evaluate` returns of each example, each counted once.

  Raises:
    UserError: an option is out of range, or a metric is none of predictions.
  """

  metrics: Mapping[str, Mapping[str, Any]] = option(
    "`{any name: dict(name='FILE.Class', …)}`, metrics of predictions in `metrics/`."
  )

  def __post_init__(self):
    super().__post_init__()
    self._metrics = {n: build_metric(s, self._place(n)) for n, s in self.metrics.items()}

  def _place(self, metric: str) -> str:
    return f'{self.where}.metrics.{metric}'

  @property
  def function(self) -> Function:
    return self.session.objective.evaluate

  def check(self) -> None:
    columns = _predictions(merge_columns(self._shapes()))
    for name, metric in self._metrics.items():
      try:
        metric.check(columns)
      except UserError as error:
        raise UserError(f'{self._place(name)}: {error}') from error

  @property
  def figure_names(self) -> tuple[str, ...] | None:
    columns = merge_columns(self._shapes())
    predictions = _predictions(columns)
    names = [*self.session.objective.derive(dict.fromkeys(figure_columns(columns), 1.0))]
    for metric in self._metrics.values():
      headlines = metric.headlines(predictions)
      if headlines is None:
        return None
      names += headlines
    return tuple(names)

  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None
  ) -> Results:
    columns = self._columns(variables, key, progress)
    figures = self._derived(mean_figures(columns))
    predictions = _predictions(columns)
    tables: dict[str, Any] = {}
    pictures: dict[str, np.ndarray] = {}
    for metric in self._metrics.values():
      summary = metric.summarise(predictions, self.spec.class_names, details)
      figures.update(
        {name: Figure(v.value, None, v.interval) for name, v in summary.figures.items()}
      )
      tables.update(summary.tables)
      pictures.update(summary.pictures)
    return Results(figures, tables, pictures)

  def _derived(self, means: Mapping[str, Figure]) -> dict[str, Figure]:
    """The figures to report: the means as they are, or what the objective derives from them."""
    derived = self.session.objective.derive({name: figure.mean for name, figure in means.items()})
    return {name: means.get(name, Figure(value)) for name, value in derived.items()}


def build_metric(spec: Mapping[str, Any], where: str) -> PredictionMetric:
  """Builds a metric of predictions.

  Raises:
    UserError: there is none of that name, or it is of another kind.
  """
  metric = build(spec, 'metrics', where)
  if not isinstance(metric, PredictionMetric):
    raise UserError(
      f'{where}.name={spec["name"]} is no metric of predictions; one of samples belongs into an '
      'evaluator with name=samples'
    )
  return metric


def merge_columns(batch: Values) -> dict[str, Any]:
  """Returns metadata and values by name; a value hides metadata of its name."""
  return {**batch.metadata, **batch.values}


def _predictions(columns: Mapping[str, Any]) -> dict[str, Any]:
  """The columns that metrics of predictions read: all that are no figures."""
  return {name: column for name, column in columns.items() if not is_figure(column)}


def _widened(rows: np.ndarray) -> np.ndarray:
  return rows.astype(np.int64 if np.issubdtype(rows.dtype, np.integer) else np.float64)
