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
    self._received = 0
    self._before = {}
    self._several = jax.process_count() > 1
    if not self._several:
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception):
    self._restore()

  def received(self, step: int) -> int:
    """The number of the signal to leave for after `step`, or 0. Same on every process."""
    if not self._several:
      return self._received
    from jax.experimental import multihost_utils

    return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0

  def _note(self, number, frame):
    self._received = number
    self._restore()
    print('\nstopping after this dispatch, then saving…', file=sys.stderr, flush=True)

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
