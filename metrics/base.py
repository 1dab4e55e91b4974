"""The interfaces of metrics of predictions, metrics of samples, and feature extractors."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np


class Value(NamedTuple):
  """One figure of a metric.

  Attributes:
    value: NaN if it is not defined.
    interval: its 95 % confidence interval (low, high), or None.
  """

  value: float
  interval: tuple[float, float] | None = None


class Summary(NamedTuple):
  """The figures, tables and pictures of a metric of predictions, each by name.

  Attributes:
    figures: headlines such as `f1`, logged in training too, and details such as `f1/Shirt`, which
      only evaluate.py shows.
    tables: nested lists for metrics.json.
    pictures: uint8 [H, W, 3], written as PNG files.
  """

  figures: Mapping[str, Value]
  tables: Mapping[str, Any] = {}
  pictures: Mapping[str, np.ndarray] = {}


class Column(Protocol):
  """An array with one row per example, or its `jax.ShapeDtypeStruct`."""

  shape: tuple[int, ...]
  dtype: np.dtype


class PredictionMetric(abc.ABC):
  """A metric of a model's predictions about the examples of a split, each of them once.

  It reads columns: arrays that the objective's `evaluate` returns in addition to its figures, and
  the scalars of the batch. A classifier has `label` int [N], `prediction` int [N] and `probability`
  [N, K]; a regression has `target` [N, 1] and `prediction` [N, 1].
  """

  @abc.abstractmethod
  def check(self, columns: Mapping[str, Column]) -> None:
    """Raises UserError if a column that the metric needs is missing, or of another kind."""

  def headlines(self, columns: Mapping[str, Column]) -> tuple[str, ...] | None:
    """Returns the names of the headline figures; None where they are known only afterwards.

    Args:
      columns: those that `check` accepts, or their shapes.
    """
    del columns
    return None

  @abc.abstractmethod
  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    """Returns headline figures, and with `details` also details, tables and pictures.

    Args:
      columns: columns by name that `check` accepts.
      class_names: K names; empty if there are no classes.
      details: False in training, where only headlines are needed.
    """


class SampleMetric(abc.ABC):
  """A metric that compares samples with real examples, from the features of both.

  Features are added to a state, a NamedTuple of arrays that can be merged and stored. Its sums are
  float64, so that neither the order nor the size of the batches matters.
  """

  # Whether the metric reads the classes of samples and examples.
  needs_labels: ClassVar[bool] = False
  # The fewest real examples and the fewest samples that it is defined for.
  fewest_examples: ClassVar[int] = 1
  fewest_samples: ClassVar[int] = 1

  @abc.abstractmethod
  def empty(self) -> Any:
    """Returns the state of no features."""

  @abc.abstractmethod
  def update(self, state: Any, features: np.ndarray, labels: np.ndarray | None) -> Any:
    """Returns the state with features added.

    Args:
      state: the state before.
      features: float32 [N, D].
      labels: int [N], the classes of the examples, or those that the samples were conditioned on;
        None if there are no classes.
    """

  @abc.abstractmethod
  def merge(self, a: Any, b: Any) -> Any:
    """Returns the state of the features of `a` and `b` together."""

  @abc.abstractmethod
  def compare(self, reference: Any, samples: Any) -> float:
    """Returns the metric, from the state of the real examples and that of the samples.

    Raises:
      UserError: there are too few of either.
    """


class FeatureExtractor(abc.ABC):
  """A feature space in which images are compared.

  Subclasses are frozen dataclasses of their options, so that their `repr` identifies them.
  """

  @property
  @abc.abstractmethod
  def label(self) -> str:
    """The extractor's name in the names of figures, e.g. `pixels14`; without `_` and `-`."""

  @abc.abstractmethod
  def extract(self, images: jax.Array) -> jax.Array:
    """Returns the features float32 [N, D] of images float32 [N, H, W, C] in [0, 1]; works in jit.

    Raises:
      ValueError: the extractor cannot take images of this shape.
    """
