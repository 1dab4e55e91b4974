"""The barrier at which the processes of a job wait for one another while they save."""

from engine import distributed


class SaveBarrier:
  """Orbax's barrier between the background threads of all processes, for one save after another.

  It lets all pass once a process has given up its part of a save. That process waits at a later
  barrier than the others, which with Orbax's own barrier would wait for it for 20 minutes.
  """

  # The barriers at which Orbax ends a save, well or not; at all others one that fails is missing.
  _AT_THE_END = 'ThreadSaveMultiHostValueHolder'

  def __init__(self) -> None:
    self._save, self._passed, self._given_up = 0, 0, False

  def begin(self) -> None:
    """Begins another save; every process begins as many."""
    self._save, self._passed, self._given_up = self._save + 1, 0, False

  def __call__(self, *, key: str, timeout_ms: int) -> None:
    """Returns when all processes have come to the barrier `key` of this save.

    Raises:
      RuntimeError: one of them has given up, or has ended.
    """
    del timeout_ms
    if not self._given_up:
      place = f'checkpoint {self._save}, barrier {self._passed}'
      self._passed += 1
      self._given_up = len({*distributed.of_all(place, key, in_order=False)}) > 1
    if self._given_up and self._AT_THE_END not in key:
      raise RuntimeError('another process did not write its part of the checkpoint')
