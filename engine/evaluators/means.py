"""Means over examples, weighted, with their standard errors."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from engine.evaluators.base import Figure

# Among the columns of an objective, how much each example counts.
WEIGHT = 'weight'


def is_figure(column: np.ndarray) -> bool:
  """Returns whether a column, or its shape, holds one float per example."""
  return len(column.shape) == 1 and jnp.issubdtype(column.dtype, jnp.floating)


def figure_columns(columns: Mapping[str, np.ndarray]) -> list[str]:
  """Returns the names of the columns, or of their shapes, whose means are figures."""
  return [name for name, column in columns.items() if is_figure(column) and name != WEIGHT]


def mean_figures(columns: Mapping[str, np.ndarray]) -> dict[str, Figure]:
  """Returns the mean of every column that is a figure, weighted by `weight` if that is among them.

  Args:
    columns: [N, …] by name; figures are float64 [N].
  """
  figures = {name: column for name, column in columns.items() if is_figure(column)}
  weight = figures.pop(WEIGHT, None)
  return {name: weighted_mean(column, weight) for name, column in figures.items()}


def weighted_mean(values: np.ndarray, weight: np.ndarray | None) -> Figure:
  """Returns Σwx/Σw with the standard error of a ratio of sums (Cochran 1977, equation 6.13).

  Args:
    values: float64 [N]; those of no weight may hold anything.
    weight: float64 [N], 0 or more; None for equal weights.
  """
  weight = np.ones_like(values) if weight is None else weight
  total, n = weight.sum(), len(values)
  if not total:
    return Figure(math.nan)
  mean = float(np.sum(weight * np.where(weight > 0, values, 0)) / total)
  deviations = weight * np.where(weight > 0, values - mean, 0)
  error = math.sqrt(n / (n - 1) * float(np.sum(deviations**2))) / total if n > 1 else None
  return Figure(mean, error)


class RunningMeans:
  """The means of figures over the batches so far."""

  def __init__(self):
    self._sums: dict[str, float] = {}
    self._total = 0.0

  def add(self, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Adds a batch; returns the means of all batches."""
    figures = {name: column for name, column in columns.items() if is_figure(column)}
    weight = figures.pop(WEIGHT, None)
    for name, values in figures.items():
      own = np.ones_like(values) if weight is None else weight
      added = float(np.sum(own * np.where(own > 0, values, 0)))
      self._sums[name] = self._sums.get(name, 0.0) + added
    count = len(next(iter(columns.values())))
    self._total += count if weight is None else float(weight.sum())
    return {name: value / self._total for name, value in self._sums.items() if self._total}
