"""One process of a comparison, kept alive and asked for steps in turn with the other one."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from errors import UserError

ROOT = Path(__file__).parents[1]


class Side:
  """A program that speaks the protocol of `benchmarks/peers/protocol.py`.

  Args:
    command: that starts it.
    environment: it runs with.
    folder: it runs in; this checkout by default.
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

  def ask(self, word: str, steps: int) -> float:
    """Steps per second of `steps` steps."""
    self._process.stdin.write(f'{word} {steps}\n')
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      raise UserError('a side of the comparison ended; its message stands above')
    answer = json.loads(line)
    return answer['steps'] / answer['seconds']

  def close(self) -> None:
    self._process.stdin.write('quit\n')
    self._process.stdin.close()
    self._process.wait(timeout=60)
