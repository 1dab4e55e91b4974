"""One of the objective's costly per-example measurements, such as a likelihood by sampling."""

import dataclasses
import functools
from typing import Any

import jax

from engine.evaluators.base import OpenSplit, Progress, Results
from engine.evaluators.batches import Function
from engine.evaluators.examples import OverSplit, merge_columns
from engine.evaluators.means import figure_columns, mean_figures
from engine.session import Session
from errors import choose
from objectives.base import Variables
from options import complete, option


@dataclasses.dataclass(eq=False, init=False)
class Measure(OverSplit):
  """The means of a measurement over a split, under the noise that the evaluator `examples` draws.

  It takes the options that the measurement declares beside its own.

  Raises:
    UserError: the objective has no such measurement, or an option is unknown or out of range.
  """

  measurement: str = option("A name in the objective's `measurements`.")

  def __init__(
    self,
    name: str,
    session: Session,
    open_split: OpenSplit,
    *,
    measurement: str,
    split: str,
    every: int,
    batch_size: int,
    average: str,
    **options: Any,
  ):
    super().__init__(name, session, open_split, every, batch_size, average, split)
    self.measurement = measurement
    chosen = choose(session.objective.measurements, measurement, f'{self.where}.measurement')
    given = complete(
      chosen.options, options, f'the measurement "{measurement}"', prefix=f'{self.where}.'
    )
    self._measure = functools.partial(chosen.measure, **given)

  @property
  def function(self) -> Function:
    return self._measure

  @property
  def figure_names(self) -> tuple[str, ...]:
    return tuple(figure_columns(merge_columns(self._shapes())))

  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None
  ) -> Results:
    del details
    return Results(mean_figures(self._columns(variables, key, progress)))
