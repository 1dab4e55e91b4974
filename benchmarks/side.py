"""One side of a comparison: a process that is kept alive and runs steps on demand."""

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import UserError

ROOT = Path(__file__).parents[1]


class SideFailed(UserError):
  """A process of a comparison has ended, or has answered with an error."""


class Side:
  """A running program that follows the protocol of `benchmarks/peers/protocol.py`.

  Args:
    command: the command that starts the program.
    environment: its environment variables.
    folder: its working directory; by default this checkout.
  """

  def __init__(
    self, command: Sequence[str], environment: Mapping[str, str], folder: Path | str = ROOT
  ):
    self._process = subprocess.Popen(
      command,
      cwd=folder,
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def speed(self, command: str, steps: int) -> float:
    """Runs `steps` steps and returns the steps per second.

    Args:
      command: 'warm' or 'run', see the protocol.
      steps: how many steps to run.

    Raises:
      SideFailed: the process has ended, or the steps have failed.
    """
    answer = self._ask(f'{command} {steps}')
    return answer['steps'] / answer['seconds']

  def description(self) -> dict[str, Any]:
    """Returns what the program says of itself, after its first steps; see the protocol."""
    return self._ask('describe')

  def _ask(self, command: str) -> dict[str, Any]:
    try:
      self._process.stdin.write(f'{command}\n')
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ''
    if not line:
      raise SideFailed('its process has ended; see its message above')
    answer = json.loads(line)
    if 'error' in answer:
      raise SideFailed(answer['error'])
    return answer

  def close(self) -> None:
    """Ends the process, if it has not ended."""
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write('quit\n')
      self._process.stdin.close()
    self._process.wait(timeout=60)
