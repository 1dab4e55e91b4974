"""The description that is saved in every checkpoint beside the state."""

from collections.abc import Sequence
from typing import Any

from engine import runtime
from engine.build import to_plain
from engine.patience import Patience
from engine.session import Session


def checkpoint_meta(
  session: Session, step: int, patience: Sequence[Patience], transferred_from: Sequence[str]
) -> dict[str, Any]:
  """Returns the description of a checkpoint.

  Args:
    session: of the run.
    step: steps taken.
    patience: of each lane.
    transferred_from: the runs that parameters came from at the start.
  """
  return {
    'used': step * session.per_step,
    'seeds': [int(seed) for seed in session.lanes.seeds],
    'data': session.spec.identity,
    'n': session.spec.n,
    'config': to_plain(session.config),
    'versions': runtime.versions(),
    'patience': [[*each] for each in patience],
    'transferred_from': list(transferred_from),
  }
