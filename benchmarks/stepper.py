"""The training steps of a config without the loop: no logs, no checkpoints, no evaluation."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from engine.feeds import open_feed
from engine.flops import count_flops, count_recomputed
from engine.metric_rows import weighted_means
from engine.planning.devices import device_of_kind
from engine.program import make_program
from engine.session import open_session
from engine.state import State


class Stepper:
  """Takes steps of a config on demand.

  Attributes:
    state: the state of all lanes after the last step.
  """

  state: State

  def __init__(self, config: ConfigDict):
    self._session = open_session(config)
    self._feed = open_feed(self._session, step=0)
    self._program = make_program(self._session, self._feed)
    self.state = self._session.init()
    self._ok = self._put(np.bool_(True))
    self._active = self._put(np.ones(self._session.lanes.number, bool))
    self._step = 0

  def describe(self) -> dict[str, Any]:
    """Returns the device, the version of jax, and what the MFU is computed from.

    `flops` are the operations of a step, recomputed ones not counted; `peak` those of the device in
    a second at `config.train.precision`, None where they are not known.
    """
    number, data = self._feed.take(self._step * self._session.per_step, self._program.capacity)
    count = self._put(np.int32(number))
    dispatch = self._program.dispatch
    jaxpr = dispatch.trace(self.state, self._ok, data, count, self._active).jaxpr.jaxpr
    known = device_of_kind(self._session.mesh.devices.flat[0].device_kind)
    return {
      **described_device(),
      'flops': count_flops(jaxpr) - count_recomputed(jaxpr),
      'peak': known.peak(self._session.train.precision) if known else None,
    }

  def run(self, steps: int) -> dict[str, float]:
    """Takes `steps` steps and returns the losses of the last step, of the first lane."""
    last = self._step + steps
    while self._step < last:
      length = min(last - self._step, self._program.capacity)
      number, data = self._feed.take(self._step * self._session.per_step, length)
      count = self._put(np.int32(number))
      self.state, self._ok, rows = self._program.dispatch(
        self.state, self._ok, data, count, self._active
      )
      self._step += number
    rows = np.asarray(rows)[:, number - 1 : number]
    figures = weighted_means(rows, self._program.names)[0]
    return {name: value for name, value in figures.items() if name.endswith('/loss')}

  def _put(self, value: Any) -> jax.Array:
    return jax.device_put(value, self._session.replicated)


def described_device() -> dict[str, str]:
  """Returns the kind of the first device and the version of jax."""
  return {'device': jax.devices()[0].device_kind, 'version': f'jax {jax.__version__}'}
