"""The three kinds of thing that evaluators are made of: metrics of predictions and of samples, and
the extractors of the features in which samples are compared."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
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
  """The figures, tables and pictures of a metric of predictions.

  Attributes:
    figures: by name; `f1` is a headline, logged in training as well, `f1/Shirt` a detail that only
      evaluate.py shows.
    tables: by name, nested lists for metrics.json.
    pictures: by name, uint8 [H, W, 3], written as PNG files.
  """

  figures: Mapping[str, Value]
  tables: Mapping[str, Any] = {}
  pictures: Mapping[str, np.ndarray] = {}


class Column(Protocol):
  """An array of one row per example, or its `jax.ShapeDtypeStruct`: what a check looks at."""

  shape: tuple[int, ...]
  dtype: np.dtype


class PredictionMetric(abc.ABC):
  """A metric of what a model predicts about the examples of a split, each of them once.

  Its columns are what the objective's `evaluate` returned beside its figures, and the scalars of
  the batch: of a classifier `label` int [N], `prediction` int [N], `probability` [N, K]; of a
  regression `target` [N, 1], `prediction` [N, 1].
  """

  @abc.abstractmethod
  def check(self, columns: Mapping[str, Column]) -> None:
    """Raises UserError where a column it needs is not there, or is of another kind."""

  @abc.abstractmethod
  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    """Returns figures, and with `details` tables and pictures too.

    Args:
      columns: by name, as `check` accepts them.
      class_names: K names; empty where there are no classes.
      details: False in training, where only headlines are needed.
    """


class SampleMetric(abc.ABC):
  """A comparison of samples with real examples, given the features of both.

  Features are added to a state, a NamedTuple of arrays that can be merged and stored; what is
  summed in it is float64, so that neither the order nor the size of the pieces matters.
  """

  # Whether it reads the classes of samples and examples.
  needs_labels: ClassVar[bool] = False

  @abc.abstractmethod
  def empty(self) -> Any:
    """Returns the state of no features."""

  @abc.abstractmethod
  def update(self, state: Any, features: np.ndarray, labels: np.ndarray | None) -> Any:
    """Returns the state with features added.

    Args:
      state: of the features before.
      features: float32 [N, D].
      labels: int [N], the classes of the examples, or those that the samples were conditioned on;
        None where there are none.
    """

  @abc.abstractmethod
  def merge(self, a: Any, b: Any) -> Any:
    """Returns the state of the features of both."""

  @abc.abstractmethod
  def compare(self, reference: Any, samples: Any) -> float:
    """Returns the metric of the states of the real examples and of the samples.

    Raises:
      UserError: there are too few of either.
    """


class FeatureExtractor(abc.ABC):
  """A space of features in which images are compared.

  It is a frozen dataclass of its options, so that its `repr` tells two of them apart.
  """

  @property
  @abc.abstractmethod
  def label(self) -> str:
    """The name of the space in the names of figures, e.g. `pixels14`; without `_` and `-`."""

  @abc.abstractmethod
  def extract(self, images: jax.Array) -> jax.Array:
    """Returns the features float32 [N, D] of images float32 [N, H, W, C] in [0, 1]; pure, in jit.

    Raises:
      ValueError: images of this shape have no such features.
    """
