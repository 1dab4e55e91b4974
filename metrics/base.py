"""The interfaces of metrics of predictions, metrics of samples, and feature extractors."""

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
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


class FeatureBatch(NamedTuple):
  """The features of real examples or of samples, one row each.

  Attributes:
    features: float32 [N, D].
    numbers: int64 [N], the example's place in its split, or the sample's number; no two rows of a
      split, or of the samples, have the same.
    probabilities: float32 [N, K] of the extractor's classes; None where no metric needs them.
    labels: int [N], the classes of the examples, or those that the samples were conditioned on;
      None if there are no classes.
  """

  features: np.ndarray
  numbers: np.ndarray
  probabilities: np.ndarray | None = None
  labels: np.ndarray | None = None


class Fewest(NamedTuple):
  """The fewest rows that a metric is defined for.

  Attributes:
    examples: real examples, of the reference and of held-out data each.
    samples: samples.
  """

  examples: int
  samples: int


class SampleMetric(abc.ABC):
  """A metric that compares samples with real examples, from the features of both.

  Features are added to a state, a NamedTuple of arrays that can be merged and stored. Neither the
  order nor the size of the batches matters: sums are float64, and where only some rows are kept,
  their numbers decide which (`metrics.kept_rows`).

  Subclasses are frozen dataclasses of their options, so that their `repr` identifies them.
  """

  # The names of the figures; none where there is one, which has the name of the metric's entry in
  # the config.
  figures: ClassVar[tuple[str, ...]] = ()
  # Whether the metric reads the classes of samples and examples.
  needs_labels: ClassVar[bool] = False
  # Whether it reads the probabilities of the extractor's classes.
  needs_probabilities: ClassVar[bool] = False
  # Whether it compares samples with held-out examples too.
  needs_held_out: ClassVar[bool] = False
  # Whether evaluate.py computes confidence intervals by leaving out groups of samples.
  resampled: ClassVar[bool] = True

  def fewest(self, dimension: int) -> Fewest:
    """Returns how many rows of features [N, dimension] the metric needs."""
    del dimension
    return Fewest(1, 1)

  @abc.abstractmethod
  def empty(self) -> Any:
    """Returns the state of no features."""

  @abc.abstractmethod
  def update(self, state: Any, batch: FeatureBatch) -> Any:
    """Returns the state with the rows of a batch added."""

  @abc.abstractmethod
  def merge(self, a: Any, b: Any) -> Any:
    """Returns the state of the features of `a` and `b` together."""

  @abc.abstractmethod
  def compare(self, reference: Any, samples: Any, held_out: Any | None = None) -> tuple[float, ...]:
    """Returns the figures, in the order of `figures`; NaN where one is not defined.

    Args:
      reference: the state of the real examples.
      samples: that of the samples.
      held_out: that of other real examples; None unless `needs_held_out`.

    Raises:
      UserError: there are too few of either.
    """

  def comparison(
    self, reference: Any, held_out: Any | None = None
  ) -> Callable[[Any], tuple[float, ...]]:
    """Returns `compare` for several states of samples, with what they share computed once."""
    return functools.partial(self.compare, reference, held_out=held_out)


class Extracted(NamedTuple):
  """The features of a batch of images.

  Attributes:
    features: float32 [N, D].
    probabilities: float32 [N, K] of the classes that the extractor was trained on; None if it is no
      classifier.
  """

  features: jax.Array
  probabilities: jax.Array | None = None


class FeatureExtractor(abc.ABC):
  """A feature space in which images are compared.

  Subclasses are frozen dataclasses of their options, so that their `repr` identifies them.
  """

  @property
  @abc.abstractmethod
  def label(self) -> str:
    """The extractor's name in the names of figures, e.g. `pixels14`; without `_`."""

  @property
  def parameters(self) -> Any:
    """Its parameters, a tree of NumPy arrays, read when they are first needed.

    Raises:
      UserError: they cannot be read.
    """
    return {}

  @property
  def checksum(self) -> str:
    """Identifies its parameters; '' if it has none."""
    return ''

  @abc.abstractmethod
  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    """Returns the features of images float32 [N, H, W, C] in [0, 1]; works in jit.

    Args:
      parameters: `self.parameters`.
      images: the images.

    Raises:
      ValueError: the extractor cannot take images of this shape.
    """
