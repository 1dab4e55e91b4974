"""Ctrl-C and SIGTERM as a note that the loop reads between two dispatches."""

import signal
import sys

import jax


class Interrupts:
  """While entered, the first SIGINT or SIGTERM is noted and a second one acts at once.

  With several processes JAX's preemption notice is used instead: all of them learn at the same step
  that one of them got a SIGTERM.
  """

  def __enter__(self):
    self._received = self._asked = 0
    self._before = {}
    self._several = jax.process_count() > 1
    if not self._several:
      for number in (signal.SIGINT, signal.SIGTERM):
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
    return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(self._asked) else 0

  def _note(self, number, frame):
    self._received = number
    self._restore()
    print('\nstopping after this dispatch, then saving…', file=sys.stderr, flush=True)

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
