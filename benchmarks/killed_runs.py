"""A small training run that is killed a few times, and what its end must equal.

Each of its processes is a fork of this one, which has imported the libraries, and tells through a
pipe of its steps, saves and evaluations, so that a kill can be timed.
"""

import atexit
import contextlib
import hashlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks.small_runs import FAMILIES as _SMALL
from benchmarks.small_runs import ROOT
from engine import runtime

STEPS, SAVE_EVERY, EVALUATE_EVERY = 40, 4, 8
KINDS: Mapping[str, int] = {'KILL': signal.SIGKILL, 'TERM': signal.SIGTERM}
MOMENTS = ('start', 'training', 'save', 'evaluation')
# How often each is drawn.
_WEIGHTS = (2, 2, 3, 2)
_PATIENCE = 1800  # seconds that one start may take; a machine may be busy with other work
_LOST, _SAVED, _ABORTED = 75, 143, -signal.SIGABRT
_SHORT = (
  f'--config.train.steps={STEPS}',
  '--config.train.epochs=0',
  '--config.train.log_every=2',
  '--config.train.sample_every=20',
  '--config.train.samples=2',
  f'--config.checkpoint.every={SAVE_EVERY}',
  f'--config.evaluators.test.every={EVALUATE_EVERY}',
)


class Family(NamedTuple):
  """A kind of run.

  Attributes:
    flags: of train.py.
    processes: how many train it.
  """

  flags: tuple[str, ...]
  processes: int = 1


_GAN = (*_SMALL['gan'].flags, f'--config.evaluators.samples.every={EVALUATE_EVERY}')
FAMILIES: Mapping[str, Family] = {
  'gan': Family(_GAN),
  'vae': Family(_SMALL['vae'].flags),
  'dcgan': Family(
    tuple(
      flag.replace('gan.py', 'dcgan.py').replace('generator.widths=8', 'generator.widths=8,4')
      .replace('discriminator.widths=8', 'discriminator.widths=4,8')
      for flag in _GAN
    )
  ),
  'gpt': Family(_SMALL['gpt'].flags),
  'processes': Family(_GAN, processes=2),
}  # fmt: skip


class Attempt(NamedTuple):
  """A kill that is to be tried.

  Attributes:
    kind: of the signal, of `KINDS`.
    moment: of `MOMENTS`.
    place: in [0, 1), where in that moment, or in which of them.
    delay: in [0, 1), of the time that the moment takes.
    process: that is sent the signal.
  """

  kind: str
  moment: str
  place: float
  delay: float
  process: int


class Kill(NamedTuple):
  """A kill that was done.

  Attributes:
    kind: of the signal.
    wanted: the moment that was drawn.
    hit: the moment in which it came.
  """

  kind: str
  wanted: str
  hit: str


class Verdict(NamedTuple):
  """The verdict on one run that was killed.

  Attributes:
    family: of the run.
    kills: in their order.
    faults: what is wrong; empty where all is well.
  """

  family: str
  kills: tuple[Kill, ...]
  faults: tuple[str, ...]


def draw_attempts(rng: random.Random, number: int, processes: int) -> list[Attempt]:
  """Returns so many kills for one run."""
  return [
    Attempt(
      rng.choice([*KINDS]),
      rng.choices(MOMENTS, _WEIGHTS)[0],
      rng.random(),
      rng.random(),
      rng.randrange(processes),
    )
    for _ in range(number)
  ]


# --- processes ------------------------------------------------------------------------------------


class Started(NamedTuple):
  """The processes of a run that were started.

  Attributes:
    numbers: their process ids.
    events: the lines that the first one says of itself, as a file descriptor.
    log: the file of each one's output.
  """

  numbers: list[int]
  events: int
  logs: list[Path]


def fork(call: Callable[[], Any], log: Path, more: Mapping[str, str] | None = None) -> int:
  """Calls a function in a process of its own, and returns its id.

  Args:
    call: whose end is that of the process, with the exit code as of Python's own.
    log: takes what it prints.
    more: of its environment.
  """
  sys.stdout.flush()
  number = os.fork()
  if number:
    return number
  _be_child(call, log, more or {})


def _be_child(call: Callable[[], Any], log: Path, more: Mapping[str, str]) -> NoReturn:
  code = 1
  try:
    os.environ.update(more)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
      os.dup2(handle, stream)
    sys.stdout = os.fdopen(1, 'w', closefd=False)
    sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
    call()
    code = 0
  except SystemExit as left:
    code = left.code if isinstance(left.code, int) else int(left.code is not None)
  except BaseException:
    traceback.print_exc()
  finally:
    # As the interpreter ends, without the frames of the parent that lie below this one.
    with contextlib.suppress(BaseException):
      threading._shutdown()
      atexit._run_exitfuncs()
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(code)


def end_of(number: int, patience: float = _PATIENCE) -> int:
  """Waits for a process, and returns its exit code, or minus the signal that ended it.

  Raises:
    TimeoutError: it did not end; it is killed.
  """
  last = time.monotonic() + patience
  while time.monotonic() < last:
    found, status = os.waitpid(number, os.WNOHANG)
    if found:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.01)
  os.kill(number, signal.SIGKILL)
  os.waitpid(number, 0)
  raise TimeoutError(f'process {number} did not end within {patience:g} s')


def train(words: Sequence[str], events: int) -> None:
  """Runs train.py in this process, which then tells of its steps, saves and evaluations."""
  from engine import checkpoint, loop

  def say(word: str) -> None:
    if events >= 0:
      os.write(events, f'{word}\n'.encode())

  read, evaluate = loop._Trainer._read, loop._Trainer._evaluate
  begin = checkpoint.Checkpoints._begin

  def told_read(self: Any, step: int, *arguments: Any) -> None:
    read(self, step, *arguments)
    say(f'step {step}')

  def told_evaluate(self: Any, due: Sequence[str], state: Any) -> Any:
    if due:
      say('evaluate')
    found = evaluate(self, due, state)
    if due:
      say('evaluated')
    return found

  def told_begin(self: Any, *arguments: Any) -> Any:
    say('save')
    return begin(self, *arguments)

  loop._Trainer._read, loop._Trainer._evaluate = told_read, told_evaluate
  checkpoint.Checkpoints._begin = told_begin
  runtime.prepare = lambda: None
  sys.argv = [*words]
  runpy.run_path(str(ROOT / words[0]), run_name='__main__')


def start(family: str, workdir: Path) -> Started:
  """Starts the processes of a run, or of its next try."""
  kind = FAMILIES[family]
  words = ['train.py', *kind.flags, *_SHORT, f'--workdir={workdir}']
  jobs: list[dict[str, str]] = [{}]
  if kind.processes > 1:
    words.append('--distributed')
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{probe.getsockname()[1]}'
    jobs = [
      {
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': str(kind.processes),
        'JAX_PROCESS_ID': str(number),
      }
      for number in range(kind.processes)
    ]
  incoming, outgoing = os.pipe()
  logs = [workdir.with_name(f'{workdir.name}.{number}.log') for number in range(kind.processes)]
  numbers = []
  for number, job in enumerate(jobs):
    said = outgoing if number == 0 else -1
    numbers.append(fork(lambda said=said: train(words, said), logs[number], job))  # type: ignore[misc]
  os.close(outgoing)
  return Started(numbers, incoming, logs)


# --- one run --------------------------------------------------------------------------------------


class Times:
  """Seconds that a start, an evaluation and a save of a family took when last measured."""

  def __init__(self) -> None:
    self.start, self.evaluation, self.save = 10.0, 0.5, 0.3


class Watch:
  """Follows a run by the events that it sends and by the files in its folder.

  Args:
    started: the run.
    workdir: its folder.
    times: of the run's moments, which are updated.
  """

  def __init__(self, started: Started, workdir: Path, times: Times):
    self._events, self._times = started.events, times
    self._folder = workdir / 'checkpoints'
    self._begun = time.monotonic()
    self._rest = b''
    self._since: dict[str, float] = {}
    self.first = self.step = -1
    self.counts = Counter[str]()

  def look(self, seconds: float) -> None:
    """Waits for an event for so long, at most, and takes what has come."""
    ready, _, _ = select.select([self._events], [], [], seconds)
    content = os.read(self._events, 2**16) if ready else b''
    if ready and not content:  # the process has ended
      time.sleep(seconds)
    *lines, self._rest = (self._rest + content).split(b'\n')
    for line in lines:
      self._take(line.decode())
    if 'save' in self._since and not self.is_saving():
      self._times.save = max(0.02, time.monotonic() - self._since.pop('save'))

  def _take(self, event: str) -> None:
    word, _, step = event.partition(' ')
    self.counts[word] += 1
    now = time.monotonic()
    if word == 'step':
      if self.first < 0:
        self.first, self._times.start = int(step), now - self._begun
      self.step = int(step)
    elif word in ('evaluate', 'save'):
      self._since[word] = now
    elif word == 'evaluated':
      self._times.evaluation = now - self._since.pop('evaluate')

  def is_saving(self) -> bool:
    """Whether there is an unfinished checkpoint."""
    try:
      return any('.orbax-checkpoint-tmp' in name for name in os.listdir(self._folder))
    except FileNotFoundError:
      return False

  def moment(self) -> str:
    """The moment that the run is in."""
    if self.first < 0:
      return 'start'
    if self.is_saving():
      return 'save'
    return 'evaluation' if 'evaluate' in self._since else 'training'

  def has_come(self, attempt: Attempt) -> bool:
    """Whether the moment in which an attempt is to kill has begun."""
    if attempt.moment == 'start':
      return True
    if attempt.moment == 'training':
      left = STEPS - max(self.first, 0)
      return 0 <= self.first and self.step >= self.first + int(attempt.place * left)
    word = 'save' if attempt.moment == 'save' else 'evaluate'
    return self.counts[word] >= 1 + int(attempt.place * 2)

  def lasts(self, attempt: Attempt) -> float:
    """Seconds within a moment at which the signal is to come."""
    length = {
      'start': self._times.start,
      'training': 0.05,
      'save': self._times.save,
      'evaluation': self._times.evaluation,
    }
    return attempt.delay * length[attempt.moment]


def kill_once(
  family: str, workdir: Path, attempt: Attempt, times: Times
) -> tuple[Kill | None, list[int]]:
  """Starts a run, sends one of its processes a signal, and waits for their ends.

  Returns:
    The kill, None where the run was over before its moment; and the exit codes of all processes.
  """
  started = start(family, workdir)
  watch = Watch(started, workdir, times)
  number = started.numbers[attempt.process]
  codes: dict[int, int] = {}
  hit, last = None, time.monotonic() + _PATIENCE
  at: float | None = None
  while len(codes) < len(started.numbers) and time.monotonic() < last:
    watch.look(0.002)
    if at is None and watch.has_come(attempt):
      at = time.monotonic() + watch.lasts(attempt)
    if hit is None and number not in codes and at is not None and time.monotonic() >= at:
      hit = watch.moment()
      os.kill(number, KINDS[attempt.kind])
    for each in started.numbers:
      if each not in codes:
        found, status = os.waitpid(each, os.WNOHANG)
        if found:
          codes[each] = os.waitstatus_to_exitcode(status)
  os.close(started.events)
  left = [each for each in started.numbers if each not in codes]
  for each in left:
    os.kill(each, signal.SIGKILL)
    os.waitpid(each, 0)
  if left:
    raise TimeoutError(f'{len(left)} processes did not end within {_PATIENCE} s')
  kill = None if hit is None else Kill(attempt.kind, attempt.moment, hit)
  return kill, [codes[each] for each in started.numbers]


def of_codes(kill: Kill | None, process: int, codes: Sequence[int]) -> list[str]:
  """Faults in the exit codes after a kill.

  Args:
    kill: that was done; None where the run was over before.
    process: that was sent the signal.
    codes: of all processes.
  """
  done = all(code == 0 for code in codes)
  if kill is None:
    return [] if done else [f'exit codes {[*codes]} without a kill']
  # Before the loop runs, SIGTERM ends a process as it ends any other.
  right = {'KILL': {-signal.SIGKILL}, 'TERM': {_SAVED, -signal.SIGTERM}}[kill.kind]
  # The others hear of it: they have saved too, or lost a process, which jax may notice first.
  others = {*right, _LOST, _ABORTED, _SAVED}
  wrong = [
    code
    for number, code in enumerate(codes)
    if code not in (right if number == process else others)
  ]
  # A signal may come when the last step is saved and the process is about to end.
  return [] if done or not wrong else [f'exit codes {[*codes]} after {kill.kind} in {kill.hit}']


def digests(workdir: Path) -> dict[str, str]:
  """Returns a digest of the bits of each leaf of the last checkpoint, by its path."""
  import jax
  import numpy as np
  import orbax.checkpoint as ocp

  found = {}
  for item in ('variables', 'training'):
    with ocp.StandardCheckpointer() as checkpointer:
      tree = checkpointer.restore(workdir / 'checkpoints' / str(STEPS) / item)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
      array = np.asarray(leaf)
      name = f'{item}{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'
      found[name] = hashlib.sha256(array.tobytes()).hexdigest()
  return found


def read_digests(workdir: Path) -> dict[str, str]:
  """Returns `digests`, read in a process of its own; empty where that fails."""
  out, log = workdir.with_name('digests'), workdir.with_name('digests.log')

  def write() -> None:
    rows = [f'{digest} {name}\n' for name, digest in digests(workdir).items()]
    out.write_text(''.join(rows))

  out.write_text('')
  end_of(fork(write, log))
  rows = [line.partition(' ') for line in out.read_text().splitlines()]
  return {name: digest for digest, _, name in rows}


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
  """Faults where the leaves of two states are not the same bits."""
  if not found:
    return ['its last checkpoint cannot be read']
  names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
  return (
    [f'{len(names)} of {len(expected)} leaves differ, the first is {names[0]}'] if names else []
  )


def of_log(workdir: Path) -> list[str]:
  """Faults in the steps of metrics.jsonl: each multiple of 2 once, in order."""

  steps = [
    json.loads(line)['step'] for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  ]
  missing = {*range(2, STEPS + 1, 2)} - {*steps}
  if steps != sorted({*steps}) or missing:
    return [f'metrics.jsonl has the steps {steps}']
  return []


def try_run(
  root: Path, family: str, attempts: Sequence[Attempt], expected: Mapping[str, str], times: Times
) -> Verdict:
  """Kills a fresh run a few times, lets it end, and judges."""
  workdir = root / 'killed'
  shutil.rmtree(workdir, ignore_errors=True)
  for log in root.glob('killed.*.log'):
    log.unlink()
  kills: list[Kill] = []
  faults: list[str] = []
  for attempt in attempts:
    try:
      kill, codes = kill_once(family, workdir, attempt, times)
    except TimeoutError as error:
      faults.append(str(error))
      continue
    if kill is not None:
      kills.append(kill)
    faults += of_codes(kill, attempt.process, codes)
    if not any(codes):
      break
  faults += run_to_end(family, workdir)
  if not faults:
    faults = [*differing(expected, read_digests(workdir)), *of_log(workdir)]
  return Verdict(family, tuple(kills), tuple(faults))


def run_to_end(family: str, workdir: Path) -> list[str]:
  """Faults in a run that nothing interrupts any more."""
  started = start(family, workdir)
  os.close(started.events)
  codes = []
  for number in started.numbers:
    try:
      codes.append(end_of(number))
    except TimeoutError as error:
      return [str(error)]
  return [f'exit codes {codes} without a kill'] if any(codes) else []
