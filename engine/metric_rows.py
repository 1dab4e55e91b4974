"""Metrics of training steps as the host reads them: values with weights, averaged over steps."""

from collections.abc import Sequence

import numpy as np


def weighted_means(rows: np.ndarray, names: Sequence[str]) -> list[dict[str, float]]:
  """Returns the mean of every metric over steps, of each lane.

  Args:
    rows: float32 [lanes, steps, M, 2], value and weight of each metric in each step.
    names: of the M metrics.

  Returns:
    `{name: mean}` of each lane, in float64; a metric without weight in all steps is absent.
  """
  values, weights = np.moveaxis(rows.astype(np.float64), -1, 0)
  totals = weights.sum(axis=1)  # [lanes, M]
  sums = (values * weights).sum(axis=1)
  return [
    {name: s / w for name, s, w in zip(names, lane_sums, lane_totals) if w > 0}
    for lane_sums, lane_totals in zip(sums, totals)
  ]
