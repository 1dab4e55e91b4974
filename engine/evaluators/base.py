"""The interface between the kinds of evaluators and what schedules and shows them."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from data.spec import Spec
from engine.averages import NONE
from engine.evaluators.batches import Split, round_up
from engine.session import Session
from engine.state import averaged_variables, weights
from errors import choose
from objectives.base import Variables
from options import option


class Figure(NamedTuple):
  """A figure, and how certain it is.

  Attributes:
    mean: over the examples, or the figure itself; NaN where it is not defined.
    standard_error: of a mean over examples; None where the figure is no such mean.
    interval: (low, high) with 95 % confidence; None where the metric gives none.
  """

  mean: float
  standard_error: float | None = None
  interval: tuple[float, float] | None = None


class Results(NamedTuple):
  """The results of one evaluation.

  Attributes:
    figures: by name.
    tables: by name, fit for JSON.
    pictures: by name, uint8 [H, W, 3].
  """

  figures: Mapping[str, Figure]
  tables: Mapping[str, Any] = {}
  pictures: Mapping[str, np.ndarray] = {}


# Called with how much is done, in the unit of `Evaluator.number`, and the means so far.
Progress = Callable[[int, Mapping[str, float]], None]

# Opens a split by the name it has in an evaluator's section.
OpenSplit = Callable[[str], Split]


# Compared by identity: two entries may have the same options.
@dataclasses.dataclass(eq=False)
class Evaluator(abc.ABC):
  """One entry of `config.evaluators`: one schedule, and one source of examples or samples.

  Its options are fields. Nothing is opened, read or compiled before it is needed.

  Attributes:
    name: of the entry.
    session: whose objective is evaluated, on its mesh.
    open_split: opens splits.

  Raises:
    UserError: an option is out of range.
  """

  # Whether a second evaluation gives the same figures; wall times do not.
  repeatable: ClassVar[bool] = True

  name: str
  session: Session
  open_split: OpenSplit
  every: int = option('Steps between evaluations in training; 0 for evaluate.py alone.', low=0)
  batch_size: int = option('Most examples or samples at once.', low=1)
  average: str = option(
    "Of the parameters evaluated: a name in config.ema, 'none' for the parameters themselves, '' "
    'for the first average of each module.'
  )

  def __post_init__(self):
    if self.average:
      choose({NONE: None, **self.session.averages}, self.average, f'{self.where}.average')

  @property
  def where(self) -> str:
    """The entry as a user writes it."""
    return f'config.evaluators.{self.name}'

  @property
  @abc.abstractmethod
  def number(self) -> int:
    """How many examples, samples or calls an evaluation takes."""

  @property
  def repeated_number(self) -> int:
    """The number of a further evaluation, without what the first one has kept."""
    return self.number

  def fewer(self, number: int) -> str:
    """Returns the flag by which an evaluation takes so many; '' if there is none."""
    del number
    return ''

  @property
  @abc.abstractmethod
  def spec(self) -> Spec:
    """The split that examples come from, or that samples are compared with."""

  @property
  def provenance(self) -> dict[str, Any]:
    """The origin of the figures beside the model and the options, fit for JSON.

    `counts` are numbers of examples and samples by what they are used for, `data` the identities of
    the splits that they come from.
    """
    return {'counts': {'examples': self.spec.n}, 'data': {'examples': self.spec.identity}}

  @property
  def figure_names(self) -> tuple[str, ...] | None:
    """The names of all figures; None where they are known only after an evaluation."""
    return None

  def check_options(self) -> None:  # noqa: B027 (most kinds have nothing to check)
    """Checks the options against the data, which costs next to nothing; `check` does so too.

    Raises:
      UserError: the evaluation would be refused.
    """

  @abc.abstractmethod
  def check(self) -> None:
    """Evaluates abstractly, without computing anything.

    Raises:
      UserError: the evaluation would be refused.
    """

  @abc.abstractmethod
  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None
  ) -> Results:
    """Evaluates variables; figures are named without the evaluator.

    Args:
      variables: `{module: variables}`.
      key: of the run. The same noise is drawn at every evaluation, so that figures compare.
      details: whether tables, pictures and figures per class are needed, not headlines alone.
      progress: called after every batch.
    """

  # --- for subclasses

  @property
  def _abstract_variables(self) -> Variables:
    """The shapes of `{module: variables}`."""
    held = weights(self.session.lane_abstract)
    return averaged_variables(held, self.session.averages, self.average)

  @property
  def _abstract_key(self) -> jax.Array:
    """The shape of a key, which is on no mesh."""
    return jax.eval_shape(lambda: jax.random.key(0))

  def _rows(self, most: int) -> int:
    """Rows of a batch: never more than `most`, but for filling the devices evenly."""
    return round_up(min(self.batch_size, most), self.session.mesh)
