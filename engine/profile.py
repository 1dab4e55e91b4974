"""A trace of a few dispatches, for xprof or TensorBoard."""

import sys

import jax

# Dispatches left out, so that compilation is over, and dispatches traced.
FIRST, NUMBER = 3, 3


class Profile:
  """While entered with `enabled`, writes a trace to `folder`; `active` while it is being taken."""

  def __init__(self, enabled: bool, folder: str):
    self._enabled, self._folder = enabled, folder
    self._dispatches = 0
    self.active = False

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._stop()

  def dispatch(self, step: int) -> jax.profiler.StepTraceAnnotation:
    """To be entered around every dispatch; starts and ends the trace by itself."""
    self._dispatches += 1
    if self._enabled and self._dispatches == FIRST:
      jax.profiler.start_trace(self._folder)
      self.active = True
    if self._dispatches == FIRST + NUMBER:
      self._stop()
    return jax.profiler.StepTraceAnnotation('train', step_num=step)

  def _stop(self):
    if self.active:
      self.active = False
      try:
        jax.profiler.stop_trace()
      except Exception as error:  # of a full disk, in many kinds
        print(f'warning: no profile in {self._folder} ({error})', file=sys.stderr)
        return
      print(f'profile  {self._folder}: open it with xprof or TensorBoard', flush=True)
