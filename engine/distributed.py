"""Joining the processes of one job, and ending together.

The processes are found as `jax.distributed.initialize` finds them (Slurm, Open MPI, TPU pods,
Kubernetes), or are told through JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. They
meet first (`engine.rendezvous`), which names whoever is missing and refuses different code and
options; only then does jax connect them.
"""

import atexit
import ctypes
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
from jax._src import clusters  # what `initialize` itself asks; nothing public tells it

from engine.code_version import ROOT, code_version
from engine.rendezvous import Lost, Rendezvous, is_loopback, meet, split_address
from engine.runtime import versions
from errors import UserError

# The exit code of a process whose job has lost another one; as sysexits.h has it, try again.
LOST = 75
# Seconds after which jax counts a process as gone that stands still; one that has ended is noticed
# by `engine.rendezvous` much earlier.
_HEARTBEAT = 45
# Seconds for a process to come to the same error by itself before it is ended by another's.
_GRACE = 3.0
# Seconds in which a process that cannot reach another learns which one has ended.
_NEWS = 5.0
_MOST_DIFFERENCES = 5
# Seconds until what one process wrote must be seen by the others.
_SEEN_WITHIN = 30.0
# Options that may differ: where the data lies on a host, and how many of its cores decode it.
PER_HOST = ('config.data.data_dir', 'config.data.workers')


class Place(NamedTuple):
  """Where a process stands in its job.

  Attributes:
    address: HOST:PORT of the first process.
    processes: how many there are.
    process: the number of this one.
    detected: whether a scheduler tells all that, as jax reads it.
  """

  address: str
  processes: int
  process: int
  detected: bool


class _Job:
  """The job that this process has joined; one per process, as in `jax.distributed`."""

  meeting: Rendezvous | None = None
  leaving = threading.Lock()


def join(
  patience: float = 300, saves: bool = True, options: Mapping[str, Any] | None = None
) -> None:
  """Joins the processes of this job; call it before jax is used.

  Args:
    patience: seconds to wait for the others.
    saves: whether SIGTERM is to be noted for a training loop; else it ends the process.
    options: what must be the same in all processes, nested, of JSON; `PER_HOST` may differ.

  Raises:
    UserError: the others cannot be found, or some of them are missing or differ.
  """
  place = find_place(patience)
  _check_address(place)
  meeting = meet(place.address, place.process, place.processes, patience)
  _Job.meeting = meeting
  _check_same(meeting, options or {})
  _check_names(meeting)
  jax.config.update('jax_enable_preemption_service', saves)
  _let_speak_before_abort()
  meeting.on_lost(_end_with)
  host, _ = split_address(place.address)
  shown = f'[{host}]' if ':' in host else host
  try:
    jax.distributed.initialize(
      coordinator_address=f'{shown}:{meeting.port}',
      num_processes=place.processes,
      process_id=place.process,
      # Slurm and Open MPI start a process for each GPU, which is told by their variables.
      cluster_detection_method=None if place.detected else 'deactivate',
      initialization_timeout=int(max(patience, 1)),
      heartbeat_timeout_seconds=_HEARTBEAT,
    )
  except (ValueError, RuntimeError) as error:
    raise UserError(f'--distributed: {str(error).splitlines()[0]}') from error
  # Python calls what was registered last first, so before jax waits for the others.
  atexit.register(meeting.end)


def find_place(patience: float) -> Place:
  """Returns where this process stands, by its environment.

  Raises:
    UserError: the environment does not tell it.
  """
  address = os.environ.get('JAX_COORDINATOR_ADDRESS')
  processes, process = _number('JAX_NUM_PROCESSES'), _number('JAX_PROCESS_ID')
  told = None not in (address, processes, process)
  if not told:
    try:
      address, processes, process, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        address, processes, process, None, None, int(patience)
      )
    except (ValueError, RuntimeError, OSError, KeyError) as error:
      raise UserError(f'--distributed: {str(error).splitlines()[0]}; {_BY_HAND}') from error
  # Open MPI 5 no longer tells where the first process is, by which jax recognises it.
  processes = _number('OMPI_COMM_WORLD_SIZE') if processes is None else processes
  process = _number('OMPI_COMM_WORLD_RANK') if process is None else process
  found = {
    'JAX_COORDINATOR_ADDRESS': address,
    'JAX_NUM_PROCESSES': processes,
    'JAX_PROCESS_ID': process,
  }
  missing = [name for name, value in found.items() if value is None]
  if address is None or processes is None or process is None:
    raise UserError(
      f'--distributed: nothing tells this process its job ({", ".join(missing)} not set); '
      f'{_BY_HAND}'
    )
  if not 0 <= process < processes:
    raise UserError(
      f'JAX_PROCESS_ID={process} must be from 0 to {processes - 1}, since there are '
      f'JAX_NUM_PROCESSES={processes}'
    )
  return Place(address, processes, process, detected=not told)


_BY_HAND = (
  'start them with python -m tools.launch, srun or mpirun, or set '
  'JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID'
)


def _number(name: str) -> int | None:
  value = os.environ.get(name)
  if value is None:
    return None
  if not value.isdigit():
    raise UserError(f'{name}={value} must be a whole number')
  return int(value)


def _check_address(place: Place) -> None:
  """Raises UserError where several hosts are to meet at the address that each calls itself by."""
  host, _ = split_address(place.address)
  several = _several_hosts()
  if several and is_loopback(host):
    raise UserError(
      f'JAX_COORDINATOR_ADDRESS={place.address} is every host itself, and {several}; give a name '
      'of the host of process 0 that the others reach'
    )


def _several_hosts() -> str:
  """Names the environment variable that gives the job several hosts; '' if none does."""
  for name in ('SLURM_STEP_NUM_NODES', 'SLURM_JOB_NUM_NODES', 'SLURM_NNODES', 'SKYPILOT_NUM_NODES'):
    if os.environ.get(name, '1') not in ('', '1'):
      return f'{name}={os.environ[name]}'
  size, local = (os.environ.get(f'OMPI_COMM_WORLD_{name}') for name in ('SIZE', 'LOCAL_SIZE'))
  if size and local and size != local:
    return f'OMPI_COMM_WORLD_SIZE={size} is more than OMPI_COMM_WORLD_LOCAL_SIZE={local}'
  names = os.environ.get('TPU_WORKER_HOSTNAMES', '')
  return f'TPU_WORKER_HOSTNAMES={names}' if ',' in names else ''


def _check_names(meeting: Rendezvous) -> None:
  """Raises UserError in all processes where a host knows itself by an address of its own alone.

  Gloo, which does the collectives of CPUs, gives the others the address of the host's own name.
  """
  complaint = ''
  if len({*meeting.hosts}) > 1 and os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    name = socket.gethostname()
    try:
      address = socket.gethostbyname(name)
    except OSError:
      address = ''
    if not address or is_loopback(address):
      complaint = (
        f'host {name} calls itself {address or "by a name that it does not know"}, where the other '
        'hosts do not reach it; put its own address beside its name in /etc/hosts'
      )
  agree('names', complaint)


def agree(topic: str, complaint: str = '') -> None:
  """Raises the same UserError in all processes where one of them has a complaint.

  All processes must call it; with one process it raises its own.

  Args:
    topic: what it is about, the same in all processes.
    complaint: a sentence; '' for none.
  """
  first = first_complaint(topic, complaint)
  if first:
    raise UserError(first)


def first_complaint(topic: str, complaint: str = '') -> str:
  """Returns the complaint of the first process that has one, the same in all; '' for none."""
  complaints = [complaint] if _Job.meeting is None else _Job.meeting.gather(topic, complaint)
  return next((each for each in complaints if each), '')


def of_first(topic: str, value: Any) -> Any:
  """Returns the first process's value, of JSON, in all processes, which must all call it."""
  if _Job.meeting is None:
    return value
  return _Job.meeting.gather(topic, value if _Job.meeting.process == 0 else None)[0]


def of_all(topic: str, value: Any, in_order: bool = True) -> list[Any]:
  """Returns the values of all processes, of JSON, which must all call it.

  Args:
    topic: what it is about, the same in all processes.
    value: this process's.
    in_order: whether it is one of the questions that all processes ask in the same order; one
      that a background thread asks is not, and its topic must not come again.
  """
  if _Job.meeting is None:
    return [value]
  return (_Job.meeting.gather if in_order else _Job.meeting.exchange)(topic, value)


def check_sees(path: Any, what: str) -> None:
  """Raises UserError in all processes where one does not see a file that the first has written.

  Args:
    path: the file, of `etils.epath`.
    what: the folder that all hosts must share, as the user wrote it.
  """
  meeting = _Job.meeting
  if meeting is None:
    return
  meeting.gather(f'written {path}', None)
  agree(
    f'seen {path}',
    ''
    if is_seen(path)
    else f'process {meeting.process} on {socket.gethostname()} does not see {path}, which process '
    f'0 on {meeting.hosts[0]} wrote; all hosts must share {what}: use a network folder or gs://…',
  )


def is_seen(path: Any) -> bool:
  """Whether a path that another process may have made is there, soon or now.

  Network folders keep for a while that there was no such path.
  """
  last = time.monotonic() + (_SEEN_WITHIN if _Job.meeting is not None else 0)
  while not path.exists():
    if time.monotonic() >= last:
      return False
    time.sleep(0.5)
  return True


def _check_same(meeting: Rendezvous, options: Mapping[str, Any]) -> None:
  """Raises UserError in all processes where one has other code, versions or options.

  Digests are compared; only where these differ is sent what they are of.
  """
  version = code_version() or {}
  commit = f'{version.get("commit", "unknown")[:12]}{" changed" if version.get("changed") else ""}'
  described = {
    'code': {'commit': commit, 'files': _digest(_sources())},
    'version': versions(),
    **options,
  }
  described = _without(json.loads(json.dumps(described)), PER_HOST)
  digests = meeting.gather('digest', _digest(json.dumps(described, sort_keys=True).encode()))
  if len({*digests}) == 1:
    return
  other = next(number for number, digest in enumerate(digests) if digest != digests[0])
  sent = described if meeting.process in (0, other) else None
  answers = meeting.gather('description', sent)
  differing = _differences(answers[0], answers[other])
  shown = '; '.join(differing[:_MOST_DIFFERENCES])
  more = f' and {len(differing) - _MOST_DIFFERENCES} more' if differing[_MOST_DIFFERENCES:] else ''
  raise UserError(
    f'process {other} on {meeting.hosts[other]} differs from process 0 on {meeting.hosts[0]} in '
    f'{shown}{more}; give all processes the same code, versions and options'
  )


def _without(tree: Any, names: Sequence[str], where: str = '') -> Any:
  """A nested mapping without the leaves of these names, `A.B.C`."""
  if not isinstance(tree, Mapping):
    return tree
  inner = {key: f'{where}.{key}'.lstrip('.') for key in tree}
  return {k: _without(v, names, inner[k]) for k, v in tree.items() if inner[k] not in names}


def _differences(first: Any, other: Any, where: str = '') -> list[str]:
  """A text 'key: value of the first, value of the other' for every leaf that differs."""
  if isinstance(first, Mapping) and isinstance(other, Mapping):
    keys = sorted({*first, *other})
    inner = [(f'{where}.{key}'.lstrip('.'), first.get(key), other.get(key)) for key in keys]
    return [text for place, a, b in inner for text in _differences(a, b, place)]
  return [] if first == other else [f'{where} ({first}, {other})']


def _sources() -> bytes:
  """The Python files of this project with their names, in order."""
  folders = sorted(each for each in ROOT.iterdir() if (each / '__init__.py').is_file())
  paths = [*ROOT.glob('*.py'), *(path for each in folders for path in each.rglob('*.py'))]
  used = [path for path in paths if path.relative_to(ROOT).parts[0] != 'tests']
  return b'\0'.join(f'{_name(path)}\0'.encode() + path.read_bytes() for path in sorted(used))


def _name(path: Path) -> str:
  return path.relative_to(ROOT).as_posix()


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def leave(reason: str, code: int) -> None:
  """Ends this process with an exit code if it is one of several, after telling them why.

  Without it they would wait for this one: each collective does, and so does jax at its end. Returns
  where there are no others.
  """
  meeting = _Job.meeting
  if meeting is None or not _Job.leaving.acquire(blocking=False):
    return
  meeting.end(reason, code)
  _end_now(code)


def explain(error: BaseException) -> None:
  """Ends this process where an error, which is no UserError, comes from the loss of another one.

  Otherwise it shows the traceback and ends it with code 1. Returns where there are no others.
  """
  meeting = _Job.meeting
  if meeting is None:
    return
  lost = meeting.wait_for_loss(_NEWS)
  if lost is not None:
    _end_with(lost, at_once=True)
  traceback.print_exception(error)
  leave(f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'[:500], 1)


def _end_with(lost: Lost, at_once: bool = False) -> None:
  """Ends this process because another one has ended."""
  # It may be about to tell the same mistake.
  if lost.reason and not at_once:
    time.sleep(_GRACE)
  if not _Job.leaving.acquire(blocking=False):
    return
  here, meeting = '', _Job.meeting
  if meeting is not None:
    here = f'process {meeting.process} of {len(meeting.hosts)} stops'
  who = f'process {lost.process} on {lost.host}'
  if lost.reason:
    print(f'error: {who} ended: {lost.reason}; {here} with it', file=sys.stderr)
  else:
    print(
      f'error: {who} was killed, or its host is gone; {here}; start the same command on all hosts '
      'again to go on from the last checkpoint',
      file=sys.stderr,
    )
  if meeting is not None:
    meeting.wait_for_others()
  _end_now(lost.code or LOST)


def _end_now(code: int) -> NoReturn:
  """Ends the process without what jax would do at its end: to wait for the others."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _let_speak_before_abort() -> None:
  """Delays an abort by jax for a few seconds, in which this process can say what has happened.

  Where the first process is gone, jax's service aborts the others at once, by a thread of C++, and
  before they can say what has happened. The handler is `sleep` itself, so that nothing of Python
  runs in it; its argument is the signal's number, 6 seconds. Then the abort goes on.
  """
  if sys.platform != 'linux':
    return
  library = ctypes.CDLL(None)
  library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
  library.signal.restype = ctypes.c_void_p
  library.signal(int(signal.SIGABRT), ctypes.cast(library.sleep, ctypes.c_void_p))


def hosts() -> Sequence[str]:
  """Returns the host of each process of the job, by number; of one process its own."""
  return (socket.gethostname(),) if _Job.meeting is None else _Job.meeting.hosts
