"""The check that the columns which a metric reads exist."""

from collections.abc import Mapping

from errors import UserError
from metrics.base import Column


def require(columns: Mapping[str, Column], metric: str, *names: str) -> None:
  """Checks that the columns `names` exist.

  Args:
    columns: the existing columns.
    metric: FILE.Class of the metric that needs them.
    *names: the names of the columns that it needs.

  Raises:
    UserError: one of them is missing.
  """
  for name in names:
    if name not in columns:
      raise UserError(
        f'{metric} needs a column "{name}", and this objective and data have only: '
        f'{", ".join(sorted(columns)) or "none"}; remove it from the metrics of that evaluator'
      )
