"""The two kinds of metric, and what one that reads predictions returns."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Value(NamedTuple):
  """One figure.

  Attributes:
    value: NaN where it is not defined.
    interval: (low, high) that holds it with 95 % confidence, or None.
  """

  value: float
  interval: tuple[float, float] | None = None


class Summary(NamedTuple):
  """What predictions come to.

  Attributes:
    figures: by name; `f1` is a headline, logged in training as well, `f1/Shirt` a detail that only
      evaluate.py shows.
    tables: by name, nested lists for metrics.json.
    pictures: by name, uint8 [H, W, 3]; evaluate.py writes them as NAME.png.
  """

  figures: Mapping[str, Value]
  tables: Mapping[str, Any] = {}
  pictures: Mapping[str, np.ndarray] = {}


class PredictionMetric(Protocol):
  """A metric of what a model says about the examples of a split, each of them once."""

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    """Returns figures, and with `details` tables and pictures too.

    Args:
      columns: what the objective's `evaluate` returned beside its figures, and the integers of the
        batch: of a classifier `label` int [N], `prediction` int [N], `probability` [N, K]; of a
        regression `target` [N], `prediction` [N, 1].
      class_names: K names; empty where there are no classes.
      details: False in training, where only headlines are wanted.

    Raises:
      UserError: a column it needs is not there.
    """


class SampleMetric(Protocol):
  """A metric of images that a model drew, against those of a split; both as mergeable states.

  One whose class has the attribute `costly = True` is shown by evaluate.py alone.
  """

  def empty(self) -> Any:
    """The state of no images."""

  def update(self, state: Any, images: np.ndarray, labels: np.ndarray | None) -> Any:
    """The state with images float32 [N, H, W, C] in [0, 1] added.

    Args:
      state: of the images before.
      images: further ones.
      labels: their classes, int [N]: those of the split, or those that a conditional model was
        asked for, every class in turn; None where there are none.
    """

  def compare(self, reference: Any, drawn: Any) -> float:
    """The metric."""
