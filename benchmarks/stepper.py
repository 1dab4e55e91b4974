"""The training program of a config without its loop: no logs, no checkpoints, no evaluation."""

import jax
import numpy as np
from ml_collections import ConfigDict

from engine.program import make_program
from engine.session import open_feed, open_session


class Stepper:
  """Takes steps of a config on demand."""

  def __init__(self, config: ConfigDict):
    self._session = open_session(config)
    self._feed = open_feed(self._session, step=0)
    self._program = make_program(self._session, self._feed)
    self._state = self._session.init()
    self._ok = self._put(np.bool_(True))
    self._step = 0

  def run(self, steps: int) -> dict[str, float]:
    """Takes `steps` steps and returns the last one's losses."""
    last = self._step + steps
    while self._step < last:
      length = min(last - self._step, self._program.capacity)
      number, taken = self._feed.take(self._step * self._session.per_step, length)
      count = self._put(np.int32(number))
      self._state, self._ok, rows = self._program.dispatch(self._state, self._ok, taken, count)
      self._step += number
    row = dict(zip(self._program.names, np.asarray(rows)[number - 1]))
    return {name: float(value) for name, value in row.items() if name.endswith('/loss')}

  def _put(self, value: np.generic) -> jax.Array:
    return jax.device_put(value, self._session.everywhere)
