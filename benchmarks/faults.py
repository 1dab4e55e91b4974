"""Kills training runs at random moments, and compares their final states with uninterrupted ones.

  python -m benchmarks.faults --kills=200 --seed=0
  python -m benchmarks.faults --kills=10 --seed=3 --families=gan,processes

Every run is a small one of `train.py`. It is killed a few times by SIGKILL or SIGTERM, each time
started again with the same command, and then goes to its end. Each leaf of its last checkpoint
must equal, bit for bit, that of a run of the same config that nothing has interrupted. The family
`processes` is one run of two processes, of which a random one is sent the signal.

The moments are drawn in a start (up to the first step), in training, in a save and in an
evaluation. What a kill has hit is told by the state of the run when the signal is sent: a save
has an unfinished checkpoint in the folder; steps and evaluations are told by the run itself, in
which the functions of the loop are wrapped for that.

A start is a fork of this process, which has imported the libraries; the rest of it, from the
flags on, is that of `python train.py`. The exit code is 1 where a state differs, or a process
ended otherwise than a kill explains. --seconds=600 begins no run after ten minutes.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import app, flags, logging

from benchmarks.killed_runs import (
  FAMILIES,
  KINDS,
  MOMENTS,
  Times,
  Verdict,
  draw_attempts,
  end_of,
  fork,
  read_digests,
  run_to_end,
  try_run,
)
from benchmarks.small_runs import ROOT, write_data
from engine import runtime


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
  """A folder with data, caches, and room for runs; this process has imported the libraries."""
  root = Path(tempfile.mkdtemp(prefix='faults-')).resolve()
  settings = {
    'TFDS_DATA_DIR': str(root / 'data'),
    'ATELIER_CACHE': str(root / 'cache'),
    'JAX_COMPILATION_CACHE_DIR': str(root / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }
  os.environ.update(settings)
  # A process that writes a closed pipe must not be ended by that.
  signal.signal(signal.SIGPIPE, signal.SIG_IGN)
  os.chdir(ROOT)
  _import_libraries()
  try:
    for name in ('fuzz_images', 'fuzz_texts'):
      code = end_of(fork(lambda name=name: write_data(root / 'data', name, 0), root / 'data.log'))  # type: ignore[misc]
      if code:
        raise RuntimeError(f'the data cannot be made:\n{(root / "data.log").read_text()}')
    yield root
  finally:
    shutil.rmtree(root, ignore_errors=True)


def _import_libraries() -> None:
  import orbax.checkpoint
  import tensorboardX
  import tensorflow_datasets

  from engine import loop

  del orbax, tensorboardX, tensorflow_datasets, loop


def try_all(
  root: Path,
  kills: int,
  seed: int,
  families: Sequence[str],
  say: Callable[[str], None],
  seconds: float = 0,
) -> list[Verdict]:
  """Tries runs of all families in turn until there are so many kills, or the time is over.

  Args:
    root: of `prepared`.
    kills: how many.
    seed: draws them.
    families: of `FAMILIES`.
    say: takes a line for each run.
    seconds: after which no run is begun; 0 for any.
  """
  began = time.monotonic()
  rng = random.Random(f'faults {seed}')
  expected: dict[str, Mapping[str, str]] = {}
  times = {family: Times() for family in families}
  verdicts: list[Verdict] = []
  done = 0
  while done < kills and (not seconds or time.monotonic() - began < seconds):
    family = families[len(verdicts) % len(families)]
    if family not in expected:
      whole = root / f'whole-{family}'
      faults = run_to_end(family, whole)
      if faults:
        raise RuntimeError(
          f'an uninterrupted run of {family} fails: {faults}\n{_said(whole)[-4000:]}'
        )
      expected[family] = read_digests(whole)
    number = min(kills - done, rng.randint(2, 5))
    attempts = draw_attempts(rng, number, FAMILIES[family].processes)
    verdict = try_run(root, family, attempts, expected[family], times[family])
    verdicts.append(verdict)
    done += len(verdict.kills)
    hits = ', '.join(f'{kill.kind} in {kill.hit}' for kill in verdict.kills)
    say(f'{done:4} {family}: {hits or "no kill"}; {"; ".join(verdict.faults) or "equal"}')
    if verdict.faults:
      say(_said(root / 'killed')[-4000:])
    if len(verdicts) > 10 * kills + 10:
      raise RuntimeError('the runs end before they can be killed')
  return verdicts


def _said(workdir: Path) -> str:
  """The outputs of the processes of a run."""
  logs = sorted(workdir.parent.glob(f'{workdir.name}.*.log'))
  return '\n'.join(f'--- {log.name}\n{log.read_text(errors="replace")}' for log in logs)


def table(verdicts: Sequence[Verdict]) -> str:
  """Returns a table in Markdown: kills by kind and by moment, and how many states are equal."""
  names = ('family', 'runs', 'kills', *(f'SIG{kind}' for kind in KINDS), *MOMENTS, 'equal states')
  rows = [names, tuple('---' if not i else '---:' for i in range(len(names)))]
  families = [*dict.fromkeys(verdict.family for verdict in verdicts)]
  for family in [*families, 'all']:
    mine = [verdict for verdict in verdicts if family in (verdict.family, 'all')]
    kills = [kill for verdict in mine for kill in verdict.kills]
    kinds, hits = Counter(kill.kind for kill in kills), Counter(kill.hit for kill in kills)
    equal = sum(not verdict.faults for verdict in mine)
    rows.append(
      (
        family,
        str(len(mine)),
        str(len(kills)),
        *(str(kinds[kind]) for kind in KINDS),
        *(str(hits[moment]) for moment in MOMENTS),
        f'{equal} of {len(mine)}',
      )
    )
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


_FLAGS = ('kills', 'seed', 'families', 'seconds')


def main(argv: Sequence[str]) -> None:
  del argv
  kills, seed, families, seconds = (flags.FLAGS[name].value for name in _FLAGS)
  for name in _FLAGS:  # train.py may have flags of these names
    delattr(flags.FLAGS, name)
  unknown = {*families} - {*FAMILIES}
  if unknown:
    there = ', '.join(FAMILIES)
    print(f'error: --families={",".join(families)}: there are only {there}', file=sys.stderr)
    sys.exit(2)
  began = time.time()
  with prepared() as root:
    verdicts = try_all(root, kills, seed, families or [*FAMILIES], _say, seconds)
  print(table(verdicts))
  faults = sum(bool(verdict.faults) for verdict in verdicts)
  done = sum(len(verdict.kills) for verdict in verdicts)
  print(f'{done} kills, {len(verdicts)} runs, {faults} with faults; {time.time() - began:.0f} s')
  sys.exit(bool(faults))


def _say(line: str) -> None:
  print(line, flush=True)


if __name__ == '__main__':
  # Programs are small and many: they are compiled fast, and kept for the next start.
  os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
  runtime.prepare()
  logging.set_verbosity(logging.FATAL)
  flags.DEFINE_integer('kills', 200, 'How many.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Draws other kills for another seed.', lower_bound=0)
  flags.DEFINE_list('families', [], f'Of {", ".join(FAMILIES)}; all by default.')
  flags.DEFINE_float('seconds', 0, 'After which no run is begun; 0 for any.', lower_bound=0)
  app.run(main)
