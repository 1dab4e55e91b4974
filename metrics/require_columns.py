"""The columns that a metric reads, and the sentence for one that is not there."""

from collections.abc import Mapping

from errors import UserError
from metrics.base import Column


def require(columns: Mapping[str, Column], metric: str, *names: str) -> None:
  """Checks that columns are there.

  Args:
    columns: what there is.
    metric: FILE.Class of the metric that needs them.
    *names: of the columns.

  Raises:
    UserError: one is not there.
  """
  for name in names:
    if name not in columns:
      raise UserError(
        f'{metric} needs a column "{name}", and this objective and data give only: '
        f'{", ".join(sorted(columns)) or "none"}; take it out of the metrics of that evaluator'
      )
