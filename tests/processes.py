"""Several processes of one job on this machine, for tests."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.conftest import ROOT, environment


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def start(number: int, *command: object, devices: int = 1, **more: str) -> list[subprocess.Popen]:
  """Starts a script in so many processes of one job, each with so many devices."""
  one = [sys.executable, *map(str, command), '--distributed']
  return start_commands([one] * number, devices, **more)


def start_commands(
  commands: Sequence[Sequence[str]], devices: int = 1, **more: str
) -> list[subprocess.Popen]:
  """Starts each command as one process of a job."""
  address = f'127.0.0.1:{free_port()}'
  return [
    subprocess.Popen(
      command,
      cwd=ROOT,
      env=environment(
        devices,
        **{
          'JAX_COORDINATOR_ADDRESS': address,
          'JAX_NUM_PROCESSES': str(len(commands)),
          'JAX_PROCESS_ID': str(i),
          **more,
        },
      ),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i, command in enumerate(commands)
  ]


def outputs(processes: Sequence[subprocess.Popen], timeout: float = 240) -> list[str]:
  """Waits for the processes, and returns what each of them said."""
  with ended_at_last(processes):
    return [process.communicate(timeout=timeout)[0] for process in processes]


@contextlib.contextmanager
def ended_at_last(processes: Sequence[subprocess.Popen]) -> Iterator[None]:
  """Kills those of the processes that are left at the end."""
  try:
    yield
  finally:
    for process in processes:
      process.kill()


def wait_until(ready: Callable[[], bool], processes: Sequence[subprocess.Popen]) -> None:
  """Waits until something is so, while all processes run."""
  last = time.time() + 120
  while not ready():
    assert time.time() < last, 'it never came to be'
    for process in processes:
      assert process.poll() is None, f'ended before: {process.stdout.read()}'
    time.sleep(0.05)


def lines(path: Path) -> list[dict]:
  """The whole lines of a file of JSON that may be written just now."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]
