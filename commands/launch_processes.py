"""Several processes of one job on this machine: each with its own devices, stopped together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from errors import UserError
from options import Option

PROCESSES = Option(int, 2, 'How many processes.', low=1, high=1024)
# Seconds for the others to end by themselves after one has failed.
_GRACE = 20.0
_PAUSE = 0.1
# Ends after which the others may still be saving: through, Ctrl-C, SIGTERM.
_ORDERLY = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def launch_processes(words: Sequence[str], processes: int) -> int:
  """Runs a script in several processes that form one job, until all have ended.

  Their output is passed on line by line with the number of the process before it. SIGINT and
  SIGTERM are passed on to all of them. Once one has failed, the others have 20 seconds to end.

  Args:
    words: the script with its arguments, such as `train.py --config=configs/gan.py`.
    processes: how many.

  Returns:
    The exit code of the process that ended first with another than 0; 128 + the number of the
    signal for one that was killed.

  Raises:
    UserError: there is no script, or the devices cannot be shared out.
  """
  PROCESSES.check(processes, '--processes')
  if not words:
    raise UserError(
      'give the script after --, e.g. python -m tools.launch --processes=2 -- train.py '
      '--config=configs/gan.py'
    )
  command = [sys.executable, '-u', *words]
  if '--distributed' not in words:
    command.append('--distributed')
  shares = _devices(processes, os.environ)
  address = f'127.0.0.1:{_free_port()}'
  children = [
    subprocess.Popen(
      command,
      env={
        **os.environ,
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': str(processes),
        'JAX_PROCESS_ID': str(number),
        **share,
      },
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      start_new_session=True,  # a Ctrl-C of the terminal comes to them through this process
      preexec_fn=_end_with_parent,
    )
    for number, share in enumerate(shares)
  ]
  readers = [
    threading.Thread(target=_pass_on, args=(pipe, out, number), daemon=True)
    for number, child in enumerate(children)
    for pipe, out in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
  ]
  for reader in readers:
    reader.start()
  code = _wait(children)
  for reader in readers:
    # A process that a child started may keep its pipe open.
    reader.join(timeout=2)
  return code


def _devices(processes: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
  """The variables by which each process has its own devices.

  Raises:
    UserError: the GPUs are not a multiple of the processes, or there is a TPU.
  """
  platforms = environment.get('JAX_PLATFORMS', '')
  if platforms.startswith('tpu'):
    raise UserError(
      f'JAX_PLATFORMS={platforms}: the chips of a TPU host belong to one process; start train.py '
      '--distributed once on each host, as docs/run_on_many_hosts.md shows'
    )
  gpus = [] if platforms.startswith('cpu') else _gpus(environment)
  if not gpus:
    return [{'JAX_NUM_CPU_DEVICES': environment.get('JAX_NUM_CPU_DEVICES', '1')}] * processes
  if len(gpus) % processes:
    raise UserError(
      f'--processes={processes} cannot share out {len(gpus)} GPUs ({", ".join(gpus)}); give a '
      'number that divides them, or choose some with CUDA_VISIBLE_DEVICES'
    )
  each = len(gpus) // processes
  return [
    {'CUDA_VISIBLE_DEVICES': ','.join(gpus[number * each : (number + 1) * each])}
    for number in range(processes)
  ]


def _gpus(environment: Mapping[str, str]) -> list[str]:
  """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; jax itself is not started."""
  visible = environment.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [name.strip() for name in visible.split(',') if name.strip() not in ('', '-1')]
  try:
    listed = subprocess.run(
      ['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'],
      capture_output=True,
      text=True,
      timeout=60,
    )
  except (OSError, subprocess.TimeoutExpired):
    return []
  return listed.stdout.split() if listed.returncode == 0 else []


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def _end_with_parent() -> None:
  """Has the system send a child SIGTERM, by which it saves, when this process is killed."""
  if sys.platform == 'linux':
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM))


def _pass_on(pipe: IO[bytes], out: Any, number: int) -> None:
  for line in pipe:
    text = line.decode(errors='replace').rstrip('\n')
    with suppress(BrokenPipeError):
      print(f'[{number}] {text}', file=out, flush=True)


def _wait(children: Sequence[subprocess.Popen]) -> int:
  """Waits for all children, and ends those that are left after a failure; returns the exit code."""
  received: list[int] = []

  def hand_on(number: int, frame: object) -> None:
    del frame
    # Whoever asks again does not want to wait.
    _signal(children, number if not received else signal.SIGKILL)
    received.append(number)

  before = {each: signal.signal(each, hand_on) for each in (signal.SIGINT, signal.SIGTERM)}
  try:
    return _poll(children)
  finally:
    _signal(children, signal.SIGKILL)
    for each, handler in before.items():
      signal.signal(each, handler)


def _poll(children: Sequence[subprocess.Popen]) -> int:
  first, last, running = 0, None, dict(enumerate(children))
  while running:
    ended = {number: code for number in running if (code := running[number].poll()) is not None}
    for number, status in ended.items():
      del running[number]
      code = status if status >= 0 else 128 - status
      if code and not first:
        first = code
        print(f'process {number} {_how(status)}', file=sys.stderr, flush=True)
      if code not in _ORDERLY or status < 0:
        last = last or time.monotonic() + _GRACE
    if running and last is not None and time.monotonic() > last:
      print(f'stopping process {", ".join(map(str, running))}', file=sys.stderr, flush=True)
      _signal([*running.values()], signal.SIGKILL)
      last = None
    if not ended:
      time.sleep(_PAUSE)
  return first


def _how(status: int) -> str:
  """How a process ended, in words."""
  if status < 0:
    return f'was killed by {signal.Signals(-status).name}; the others stop'
  return f'ended with exit code {status}'


def _signal(children: Sequence[subprocess.Popen], number: int) -> None:
  for child in children:
    if child.poll() is None:
      child.send_signal(number)
