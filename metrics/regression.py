"""Errors of a regression, in the target's own unit."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from metrics.base import Column, PredictionMetric, Summary, Value
from metrics.require_columns import require


@dataclasses.dataclass(frozen=True)
class Report(PredictionMetric):
  """The errors `rmse`, `mae` and `r2`, from `target` [N] or [N, 1] and `prediction` [N, 1].

  `r2` is 1 − Σ (target − prediction)² / Σ (target − its mean)²: 0 if the prediction is the mean of
  the split, below 0 if it is worse, NaN if all targets are equal. All three are NaN if a prediction
  is not finite.
  """

  def check(self, columns: Mapping[str, Column]) -> None:
    require(columns, 'regression.Report', 'target', 'prediction')

  def headlines(self, columns: Mapping[str, Column]) -> tuple[str, ...]:
    del columns
    return ('rmse', 'mae', 'r2')

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    del class_names, details
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    self.check(columns)
    target = columns['target'].astype(np.float64)
    prediction = columns['prediction'].astype(np.float64)
    if not np.isfinite(prediction).all():
      return Summary({name: Value(float('nan')) for name in ('rmse', 'mae', 'r2')})
    defined = np.ptp(target) > 0
    return Summary(
      {
        'rmse': Value(float(root_mean_squared_error(target, prediction))),
        'mae': Value(float(mean_absolute_error(target, prediction))),
        'r2': Value(float(r2_score(target, prediction)) if defined else float('nan')),
      }
    )
