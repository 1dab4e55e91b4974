"""One side of a comparison: a process that is kept alive and runs steps on demand."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from errors import UserError

ROOT = Path(__file__).parents[1]


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
      UserError: the process has ended.
    """
    self._process.stdin.write(f'{command} {steps}\n')
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      raise UserError('a process of the comparison has ended; see its message above')
    answer = json.loads(line)
    return answer['steps'] / answer['seconds']

  def close(self) -> None:
    """Ends the process."""
    self._process.stdin.write('quit\n')
    self._process.stdin.close()
    self._process.wait(timeout=60)
