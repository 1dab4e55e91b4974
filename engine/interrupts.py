"""Ctrl-C and SIGTERM as a note that the loop reads between two dispatches."""

import os
import signal
import sys

import jax


class Interrupts:
  """While entered, the first SIGINT or SIGTERM is noted and a second one acts at once.

  With several processes jax's preemption notice is used instead: all of them learn at the same step
  that one of them got a SIGTERM. A SIGINT is handed on as one, and remembered where it came.
  """

  def __enter__(self):
    self._received = self._asked = 0
    self._before = {}
    self._several = jax.process_count() > 1
    # With several, jax itself notes a SIGTERM.
    for number in (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM):
      self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception):
    self._restore()

  def received(self) -> int:
    """The number of the signal to leave for now, or 0; to be asked as often by every process."""
    if not self._several:
      return self._received
    from jax.experimental import multihost_utils

    # The processes agree on the number of a later question, so the numbers must have no gaps.
    self._asked += 1
    if not multihost_utils.reached_preemption_sync_point(self._asked):
      return 0
    return self._received or signal.SIGTERM

  def _note(self, number, frame):
    self._received = number
    self._restore()
    print('\nstopping after this dispatch, then saving…', file=sys.stderr, flush=True)
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
