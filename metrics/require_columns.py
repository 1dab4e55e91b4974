"""The columns that a metric reads, and the sentence for one that is not there."""

from collections.abc import Mapping

import numpy as np

from errors import UserError


def take(columns: Mapping[str, np.ndarray], metric: str, *names: str) -> list[np.ndarray]:
  """Returns the columns called `names`, as arrays.

  Args:
    columns: [N, …] by name.
    metric: FILE.Class of the metric that needs them.

  Raises:
    UserError: one is not there.
  """
  for name in names:
    if name not in columns:
      raise UserError(
        f'{metric} needs a column "{name}", and this objective and data give only: '
        f'{", ".join(sorted(columns))}; take it out of config.evaluate.metrics'
      )
  return [np.asarray(columns[name]) for name in names]
