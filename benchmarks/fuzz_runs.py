"""Damages run folders and prepared data, and tries the commands on what is left.

  python -m benchmarks.fuzz_runs --cases=500 --seed=1
  python -m benchmarks.fuzz_runs --seed=1 --case=37      # one of them, with all that was printed

Each case damages a copy of a small run, or of its data, and then resumes its training, samples,
evaluates, exports or lists it with the project's own scripts, in this process; one in fifty has a
process of its own. It must end in one sentence with exit code 2, or in what an undamaged run gives:

- a resumed run ends with the same state, bit for bit, from whichever checkpoint it went on;
- samples, figures and exported files equal those of the newest checkpoint, or of an earlier one
  where it is said that the newer ones are damaged;
- every file that was not damaged is still there with the same content, checkpoints above all.

A seed draws the same cases each time, up to the names of files that Orbax draws itself.
"""

import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from absl import app, flags, logging

from benchmarks import damages
from benchmarks.small_runs import (
  BEST,
  END,
  FAMILIES,
  SAVED,
  Done,
  Expected,
  Place,
  contents,
  expect,
  fresh_copy,
  opened,
  prepare_run,
  product,
  run_apart,
  run_here,
  state_of,
  words_of,
)
from engine import runtime

# What follows a damage, as often as it stands here, and how often in a process of its own.
COMMANDS = ('train', 'train', 'train', 'sample', 'evaluate', 'export', 'list')
_PROCESS_OF_ITS_OWN = 0.02

# --- what is damaged ------------------------------------------------------------------------------


class Damaged(NamedTuple):
  """The place and the kind of one damage.

  Attributes:
    words: for people.
    paths: of files or folders below the run's folder, as they begin.
    data: whether the examples are others, or may be.
  """

  words: str
  paths: tuple[str, ...] = ()
  data: bool = False


def _files(folder: Path) -> list[Path]:
  """Files below a folder in an order that does not depend on the names that Orbax draws."""

  def key(path: Path) -> tuple[Any, ...]:
    drawn = len(path.name) == 32
    return str(path.parent), drawn, path.stat().st_size if drawn else 0, path.name

  return sorted((path for path in folder.rglob('*') if path.is_file()), key=key)


def in_run(rng: random.Random, place: Place, family: str) -> Damaged:
  """A file or a folder of the run."""
  del family
  run = place.case / 'run'
  step = rng.choice((12, 12, 12, 8, 4))
  checkpoint = run / 'checkpoints' / str(step)
  top = [run / name for name in ('config.json', 'run.json', 'metrics.jsonl', 'tokenizer.json')]
  pools: list[list[Path]] = [
    [path for path in top if path.exists()],
    [checkpoint / 'meta' / 'metadata', checkpoint / '_CHECKPOINT_METADATA'],
    _files(checkpoint / 'variables'),
    _files(checkpoint / 'training'),
    [checkpoint, *(checkpoint / name for name in ('variables', 'training', 'meta'))],
    [run / 'checkpoints', run / 'samples', run / '.lock', *sorted(run.glob('events*'))],
  ]
  pool = [path for path in rng.choice(pools) if os.path.lexists(path)]
  if not pool:
    return Damaged('nothing, what was to be damaged is gone')
  path = rng.choice(pool)
  name = str(path.relative_to(run))
  return Damaged(f'{name}: {damages.damage(rng, path)}', (name,))


def foreign_checkpoint(rng: random.Random, place: Place, family: str) -> Damaged:
  """A checkpoint of another run, of the same config with another seed, or of another family."""
  source, step = rng.choice((place.other(family), place.run('classifier'))), rng.choice((12, 12, 8))
  target = place.case / 'run' / 'checkpoints' / str(step)
  shutil.rmtree(target, ignore_errors=True)
  shutil.copytree(source / 'checkpoints' / '12', target)
  return Damaged(
    f'checkpoint {step} replaced by one of {source.relative_to(place.root)}',
    (f'checkpoints/{step}',),
  )


def renamed_checkpoint(rng: random.Random, place: Place, family: str) -> Damaged:
  """A checkpoint under the number of another."""
  del family
  folder = place.case / 'run' / 'checkpoints'
  source, target = rng.choice(((4, 12), (8, 12), (4, 13), (12, 8), (12, 14)))
  if not (folder / str(source)).is_dir():
    return Damaged('nothing, what was to be copied is gone')
  shutil.rmtree(folder / str(target), ignore_errors=True)
  shutil.copytree(folder / str(source), folder / str(target))
  return Damaged(f'checkpoint {source} copied to {target}', (f'checkpoints/{target}',))


def killed_write(rng: random.Random, place: Place, family: str) -> Damaged:
  """Leaves the files of a process that was killed while it wrote."""
  del family
  run = place.case / 'run'
  kind = rng.choice(('checkpoint', 'part', 'line', 'aside', 'first'))
  if kind == 'checkpoint':
    target = run / 'checkpoints' / f'{rng.choice((13, 16))}.orbax-checkpoint-tmp-{rng.choice("07")}'
    if (run / 'checkpoints' / '12').is_dir():
      shutil.copytree(run / 'checkpoints' / '12', target)
      (target / '_CHECKPOINT_METADATA').unlink(missing_ok=True)
      shutil.rmtree(target / rng.choice(('meta', 'training')), ignore_errors=True)
    name = str(target.relative_to(run))
  elif kind == 'part':
    name = f'{rng.choice(("config.json", "run.json", "metrics.jsonl"))}.12345.part'
    (run / name).write_text('{"half": ')
  elif kind == 'line':
    name = 'metrics.jsonl'
    if (run / name).is_file():
      with open(run / name, 'a') as file:
        file.write('{"step": 13, "model/lo')
  elif kind == 'aside':
    name = 'damaged_checkpoints'
    target = run / name / str(rng.choice((12, 8)))
    if rng.random() < 0.3:
      (run / name).write_text('a file')
    else:
      target.mkdir(parents=True)
      (target / 'of_before').write_text('kept')
  else:
    name = 'config.json'
    (run / name).unlink(missing_ok=True)
  # What was there before it is to stay.
  return Damaged(f'left by a killed write: {name}', (name,) if kind in ('line', 'first') else ())


def other_format(rng: random.Random, place: Place, family: str) -> Damaged:
  """A run of another version."""
  del family
  path = place.case / 'run' / 'run.json'
  try:
    description = json.loads(path.read_text())
    description['format'] = rng.choice((1, 3, '2', None, [], 2.5))
    path.write_text(json.dumps(description))
  except (OSError, ValueError, TypeError):
    return Damaged('nothing, run.json is gone')
  return Damaged(f'run.json: format {description["format"]!r}', ('run.json',))


def in_data(rng: random.Random, place: Place, family: str) -> Damaged:
  """A file of the data set, which is in a copy of its own with an empty cache, or a full one."""
  name = FAMILIES[family].data
  data, cache = place.case / 'data', place.case / 'cache'
  if not data.exists():
    shutil.copytree(place.data, data)
  if rng.random() < 0.5 and not cache.exists():
    shutil.copytree(place.cache, cache)
  folder = data / name / '1.0.0'
  records = [path for path in _files(folder) if 'array_record' in path.name]
  described = [folder / 'dataset_info.json', folder / 'features.json', *folder.glob('*.labels.txt')]
  pool = rng.choice((records, records, described, [folder]))
  pool = [path for path in pool if os.path.lexists(path)]
  if not pool:
    return Damaged('nothing, what was to be damaged is gone', data=True)
  path = rng.choice(pool)
  if path in records and rng.random() < 0.3:
    shutil.copy(place.root / 'other_data' / name / '1.0.0' / path.name, path)
    return Damaged(f'data {path.name}: records of another data set', data=True)
  return Damaged(f'data {path.name}: {damages.damage(rng, path)}', data=True)


def in_cache(rng: random.Random, place: Place, family: str) -> Damaged:
  """A file of the cache: decoded arrays, encoded texts, hashes; all of it can be made again."""
  del family
  cache = place.case / 'cache'
  if not cache.exists():
    shutil.copytree(place.cache, cache)
  found = _files(cache)
  if not found:
    return Damaged('nothing, the cache is empty')
  path = rng.choice([*found, *sorted({path.parent for path in found})])
  return Damaged(f'cache {path.relative_to(cache)}: {damages.damage(rng, path)}')


def base_gone(rng: random.Random, place: Place, family: str) -> Damaged:
  """The run that this one started from has moved."""
  base = FAMILIES[family].base
  if not base:
    return in_run(rng, place, family)
  os.rename(place.run(base), place.root / 'moved')
  return Damaged('the run that it started from has moved')


DAMAGES: Sequence[tuple[float, Callable[[random.Random, Place, str], Damaged]]] = (
  (10, in_run),
  (1, foreign_checkpoint),
  (1, renamed_checkpoint),
  (1.5, killed_write),
  (0.5, other_format),
  (4, in_data),
  (2, in_cache),
  (1, base_gone),
)


# --- cases ----------------------------------------------------------------------------------------


class Case(NamedTuple):
  """A damage and a command.

  Attributes:
    number: of the case.
    family: of the run.
    command: that follows.
    more: its further flags.
    apart: whether it has a process of its own.
    damages: the functions that damage, in turn.
    rng: for what they draw.
  """

  number: int
  family: str
  command: str
  more: tuple[str, ...]
  apart: bool
  damages: tuple[Callable[[random.Random, Place, str], Damaged], ...]
  rng: random.Random


def draw_case(seed: int, number: int, families: Sequence[str]) -> Case:
  """The case of a number, whatever was drawn before it."""
  rng = random.Random(f'{seed} {number}')
  family, command = rng.choice(families), rng.choice(COMMANDS)
  more: tuple[str, ...] = ()
  if command in ('sample', 'export') and rng.random() < 0.3:
    more = (f'--checkpoint={rng.choice(("best", "latest", "8"))}',)
  weights, functions = zip(*DAMAGES)
  chosen = rng.choices(functions, weights, k=rng.choice((1, 1, 1, 2)))
  apart = rng.random() < _PROCESS_OF_ITS_OWN
  return Case(number, family, command, more, apart, tuple(chosen), rng)


class Verdict(NamedTuple):
  """The verdict on one case.

  Attributes:
    words: what was damaged.
    command: the command line.
    outcome: 'unchanged', 'recovered' or 'refused' where all is well.
    faults: what is wrong; empty where all is well.
    done: how the command ended.
  """

  words: str
  command: str
  outcome: str
  faults: tuple[str, ...]
  done: Done


def try_case(case: Case, place: Place, expected: Expected) -> Verdict:
  """Damages a fresh copy, runs the command and judges."""
  run = fresh_copy(place, case.family)
  moved = place.root / 'moved'
  try:
    found = [damage(case.rng, place, case.family) for damage in case.damages]
    before = contents(place.case)
    # Data and cache of the case where it has its own; arrays can be decoded anew.
    own = {
      'TFDS_DATA_DIR': place.case / 'data' if (place.case / 'data').exists() else place.data,
      'ATELIER_CACHE': place.case / 'cache' if any(d.data for d in found)
      or (place.case / 'cache').exists() else place.cache,
    }  # fmt: skip
    words = words_of(place, case.family, case.command, case.more)
    with mock.patch.dict(os.environ, {name: str(path) for name, path in own.items()}):
      done = (run_apart if case.apart else run_here)(words)
  finally:
    if moved.exists():
      os.rename(moved, place.run(FAMILIES[case.family].base))
  faults = [*of_end(done), *of_files(case, found, before, contents(place.case))]
  outcome = 'refused' if done.code == 2 else 'unchanged'
  if not done.code and case.command == 'train':
    faults += _of_training(run, expected)
    outcome = 'recovered' if 'damaged' in done.output or 'restart' in done.output else outcome
  elif case.command in ('sample', 'evaluate', 'export'):
    made, more = product(place, case.command), of_product(case, found, done, place, expected)
    faults += more
    outcome = 'recovered' if made is not None and 'damaged' in done.output else outcome
  words_done = '; '.join(each.words for each in found)
  return Verdict(words_done, ' '.join(words), outcome, tuple(faults), done)


def of_end(done: Done) -> list[str]:
  """Faults in how a command ended."""
  if done.trace:
    return [f'traceback: {done.trace.strip().splitlines()[-1][:200]}']
  if 'Traceback (most recent call last)' in done.output:
    return ['a traceback was printed']
  if done.code not in (0, 2):
    return [f'exit code {done.code}']
  errors = [line for line in done.output.splitlines() if line.startswith('error: ')]
  if done.code == 2 and len(errors) != 1:
    return [f'{len(errors)} sentences of error with exit code 2']
  return []


def _of_training(run: Path, expected: Expected) -> list[str]:
  """Faults in a run that was resumed and ended well."""
  found, faults = state_of(run), []
  if found is None:
    return ['it ended, and there is no last checkpoint']
  if found != expected.state:
    faults.append('the resumed run ended with another state than an undamaged one')
  steps = []
  for line in (run / 'metrics.jsonl').read_text(errors='replace').splitlines():
    try:
      steps.append(json.loads(line)['step'])
    except (ValueError, KeyError, TypeError):
      faults.append('metrics.jsonl has a line that is none')
  if steps != sorted({*steps}) or steps[-1:] != [END]:
    faults.append(f'metrics.jsonl has the steps {steps}')
  return faults


def of_product(
  case: Case, found: Sequence[Damaged], done: Done, place: Place, expected: Expected
) -> list[str]:
  """Faults in what a command made, or left where it refused."""
  made = product(place, case.command)
  if done.code:
    return [f'refused, and left {made}'] if made is not None and not done.trace else []
  if made is None:
    return ['it ended well and made nothing']
  if any(each.data for each in found) and case.command != 'export':
    # Other examples give other figures and pictures of them.
    return []
  known = {step: expected.products.get((case.command, step)) for step in SAVED}
  steps = [step for step, each in known.items() if each == made]
  if not steps:
    said = 'is not as train.py wrote it' in done.output
    return [] if said else ['what it made is none of an undamaged run']
  given = dict(word.lstrip('-').split('=', 1) for word in case.more)
  asked = given.get('checkpoint', 'latest')
  if asked == 'latest':
    # One that was deleted as a whole cannot be told from one that was never saved.
    folder = place.case / 'run' / 'checkpoints'
    skipped = [s for s in SAVED if s > max(steps) and os.path.lexists(folder / str(s))]
    silent = [step for step in skipped if f'checkpoint {step}' not in done.output]
    return [f'silently took checkpoint {max(steps)}, not {silent}'] if silent else []
  if asked.isdigit():
    return [] if int(asked) in steps else [f'asked for {asked}, took {steps}']
  best = made == expected.products[case.command, BEST]
  return [] if best or 'is damaged' in done.output else [f'silently took {steps} as the best']


# What a training may write, or remove to write it anew.
_WRITTEN = ('run.json', 'config.json', 'tokenizer.json', 'metrics.jsonl', '.lock', 'events',
            'samples/', f'checkpoints/{END}/')  # fmt: skip


def of_files(
  case: Case, found: Sequence[Damaged], before: Mapping[str, str], after: Mapping[str, str]
) -> list[str]:
  """Faults where something is not as it was that was not damaged."""
  touched = [f'run/{path}' for each in found for path in each.paths]
  # Of a damaged checkpoint all goes aside.
  aside = ['/'.join(path.split('/')[:3]) for path in touched if path.startswith('run/checkpoints/')]
  written = [f'run/{name}' for name in _WRITTEN] if case.command == 'train' else []
  faults = []
  for name, content in before.items():
    if after.get(name) == content or not name.startswith('run/'):
      continue
    # Orbax removes what it has not finished.
    if any(name.startswith(path) for path in written) or '.orbax-checkpoint-tmp' in name:
      continue
    if case.command == 'train' and any(name.startswith(f'{path}/') for path in aside):
      inside = name.split('/', 3)[-1]
      if any('/damaged_checkpoints/' in each and each.endswith(inside) and after[each] == content
             for each in after):  # fmt: skip
        continue
    if any(name == path or name.startswith(f'{path}/') for path in touched):
      if case.command == 'train':
        continue
    faults.append(f'{name} {"changed" if name in after else "is gone"}')
  if case.command != 'train':
    new = [name for name in after if name not in before and name.startswith('run/')]
    faults += [f'{name} is new' for name in new]
  return faults[:3]


def try_cases(
  place: Place,
  seed: int,
  numbers: Sequence[int],
  families: Sequence[str],
  say: Callable[[str], None] = print,
) -> list[Verdict]:
  """Tries cases one after another; `say` gets a line for each that has a fault."""
  import jax

  verdicts: list[Verdict] = []
  expected: dict[str, Expected] = {}
  for at, number in enumerate(numbers):
    case = draw_case(seed, number, families)
    if case.family not in expected:
      prepare_run(place, case.family)
      expected[case.family] = expect(place, case.family)
    verdict = try_case(case, place, expected[case.family])
    verdicts.append(verdict)
    for fault in verdict.faults:
      say(
        f'case {number} ({case.family}, {case.command}): {verdict.words}\n  fault: {fault}\n'
        f'  again: python -m benchmarks.fuzz_runs --seed={seed} --case={number}'
      )
    if at % 50 == 49:
      jax.clear_caches()
  return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
  bad = sum(bool(verdict.faults) for verdict in verdicts)
  outcomes = Counter(verdict.outcome for verdict in verdicts if not verdict.faults)
  shown = ', '.join(f'{number} {outcome}' for outcome, number in sorted(outcomes.items()))
  return f'{len(verdicts)} cases: {shown or "none good"}, {bad} with faults'


_FLAGS = ('seed', 'cases', 'case', 'families')


def main(argv: Sequence[str]) -> None:
  del argv
  seed, cases, one, families = (flags.FLAGS[name].value for name in _FLAGS)
  for name in _FLAGS:  # The scripts have flags of these names.
    delattr(flags.FLAGS, name)
  families = families or [*FAMILIES]
  numbers = range(cases) if one is None else [one]
  started = time.time()
  with opened() as place:
    verdicts = try_cases(place, seed, numbers, families)
  if one is not None:
    print(f'{verdicts[0].words}\n{verdicts[0].command}\n{verdicts[0].done.output}')
    print(verdicts[0].done.trace)
  print(f'{summary(verdicts)}; {time.time() - started:.0f} s')
  sys.exit(any(verdict.faults for verdict in verdicts))


if __name__ == '__main__':
  # Programs are small and many: they are compiled fast, and kept for the next start.
  os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
  runtime.prepare()
  logging.set_verbosity(logging.FATAL)
  flags.DEFINE_integer('seed', 0, 'Draws other cases for another seed.', lower_bound=0)
  flags.DEFINE_integer('cases', 500, 'How many.', lower_bound=1)
  flags.DEFINE_integer('case', None, 'The only one to try; prints all that its command printed.')
  flags.DEFINE_list('families', [], f'Of {", ".join(FAMILIES)}; all by default.')
  app.run(main)
