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

import contextlib
import hashlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from absl import app, flags, logging

from benchmarks import damages
from engine import runtime

ROOT = Path(__file__).parents[1]
# Steps of the runs, those of their checkpoints, and where a resumed run ends.
_STEPS, _SAVED, _END = 12, (4, 8, 12), 16
_PATIENCE = 180  # seconds that a command may take
_PROCESS_OF_ITS_OWN = 0.02

_SHORT = (
  '--config.data.batch_size=8',
  '--config.train.epochs=0',
  '--config.train.log_every=2',
  '--config.train.sample_every=6',
  '--config.train.samples=2',
  '--config.checkpoint.every=4',
  '--config.checkpoint.keep=10',
)
_IMAGES = (
  '--config.data.name=fuzz_images',
  '--config.data.test_split=test',
  '--config.evaluators.test.every=4',
)
_CLASSIFIER = (
  '--config=configs/mlp.py',
  *_IMAGES,
  '--config.modules.model.widths=8',
  '--config.optimizer.model.schedule.name=constant',
  '--config.evaluators.speed.calls=1',
)
_TEXT = (
  '--config.data.name=fuzz_texts',
  '--config.data.test_split=test',
  '--config.data.text.vocabulary=0',
  '--config.data.text.length=16',
  '--config.modules.model.width=8',
  '--config.modules.model.layers=1',
  '--config.modules.model.heads=2',
  '--config.modules.model.context=16',
  '--config.optimizer.model.schedule.name=constant',
  '--config.optimizer.model.schedule.warmup=0',
  '--config.train.accumulate=1',
  '--config.train.precision=float32',
  '--config.evaluators.test.every=4',
  '--config.evaluators.speed.calls=1',
)
_GPT = ('--config=configs/gpt2.py', '--config.data.text.tokenizer=byte', *_TEXT)


class Family(NamedTuple):
  """A kind of run.

  Attributes:
    flags: of train.py.
    sample: flags of sample.py, which writes to `--out`.
    ending: of what sample.py writes.
    data: the name of its data set.
    base: the family of the run that it starts from; '' for none.
  """

  flags: tuple[str, ...]
  sample: tuple[str, ...]
  ending: str
  data: str
  base: str = ''


FAMILIES: Mapping[str, Family] = {
  'classifier': Family(_CLASSIFIER, ('--kind=explain', '--num=2'), 'png', 'fuzz_images'),
  'lanes': Family(
    (*_CLASSIFIER, '--config.seeds=2'),
    ('--kind=explain', '--num=2', '--lane=1'),
    'png',
    'fuzz_images',
  ),
  'gan': Family(
    (
      '--config=configs/gan.py',
      *_IMAGES,
      '--config.modules.generator.widths=8',
      '--config.modules.discriminator.widths=8',
      '--config.evaluators.samples.samples=8',
      '--config.evaluators.samples.batch_size=8',
      '--config.evaluators.samples.every=4',
    ),
    ('--num=3',),
    'npz',
    'fuzz_images',
  ),
  'vae': Family(
    (
      '--config=configs/vae.py',
      *_IMAGES,
      '--config.modules.encoder.widths=8',
      '--config.modules.encoder.latent_size=2',
      '--config.modules.decoder.widths=8',
      '--config.evaluators.likelihood.samples=4',
    ),
    ('--num=3',),
    'npz',
    'fuzz_images',
  ),
  'gpt': Family(_GPT, ('--num=2', '--length=6', '--prompt=a'), 'npz', 'fuzz_texts'),
  'tuned': Family(
    (
      '--config=configs/finetune.py:{base}',
      *(flag for flag in _TEXT if '.modules.' not in flag and '.speed.' not in flag),
    ),
    ('--num=2', '--length=6', '--prompt=a'),
    'npz',
    'fuzz_texts',
    'gpt',
  ),
}
COMMANDS = ('train', 'train', 'train', 'sample', 'evaluate', 'export', 'list')


# --- running the scripts --------------------------------------------------------------------------


class Done(NamedTuple):
  """How a command ended.

  Attributes:
    code: the exit code.
    output: what it printed, on both streams.
    trace: of the exception that nobody caught; '' for none.
  """

  code: int
  output: str
  trace: str = ''


def run_here(words: Sequence[str]) -> Done:
  """Runs a script (`train.py`) or a module (`tools.runs`) in this process, as the shell would."""
  output, before = io.StringIO(), {*flags.FLAGS}
  code, trace = 0, ''
  streams = (contextlib.redirect_stdout(output), contextlib.redirect_stderr(output))
  with streams[0], streams[1], mock.patch.object(sys, 'argv', [*words]), _time_limit():
    try:
      if words[0].endswith('.py'):
        runpy.run_path(str(ROOT / words[0]), run_name='__main__')
      else:
        runpy.run_module(words[0], run_name='__main__', alter_sys=True)
    except SystemExit as left:
      code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:
      code, trace = 1, traceback.format_exc()
    finally:
      for name in {*flags.FLAGS} - before:
        # Libraries define some too, once for a process.
        if flags.FLAGS.find_module_defining_flag(name).startswith(('commands.', str(ROOT))):
          delattr(flags.FLAGS, name)
  return Done(code, output.getvalue(), trace)


def run_apart(words: Sequence[str]) -> Done:
  """Likewise in a process of its own, whose libraries' prints are seen too."""
  command = words if words[0].endswith('.py') else ('-m', *words)
  done = subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
    capture_output=True,
    text=True,
    errors='replace',
    timeout=_PATIENCE,
    stdin=subprocess.DEVNULL,
  )
  return Done(done.returncode, done.stdout + done.stderr)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
  def ended(*_):
    raise TimeoutError(f'the command took more than {_PATIENCE} s')

  before = signal.signal(signal.SIGALRM, ended)
  signal.alarm(_PATIENCE)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def own_process_settings() -> Iterator[None]:
  """Within it, scripts start in a process that has jax, and compiled programs are found again."""
  with mock.patch.object(runtime, 'prepare', lambda: None), contextlib.chdir(ROOT):
    yield


# --- runs and data to damage ----------------------------------------------------------------------


class Place(NamedTuple):
  """Folders of a trial.

  Attributes:
    root: holds everything.
  """

  root: Path

  @property
  def data(self) -> Path:
    return self.root / 'data'

  @property
  def cache(self) -> Path:
    return self.root / 'cache'

  def run(self, family: str) -> Path:
    """The undamaged run of a family."""
    return self.root / 'runs' / family

  def other(self, family: str) -> Path:
    """The run of the same config with another seed."""
    return self.root / 'others' / family

  @property
  def case(self) -> Path:
    """What a case damages."""
    return self.root / 'case'

  @property
  def out(self) -> Path:
    return self.root / 'out'


class Expected(NamedTuple):
  """What an undamaged run gives.

  Attributes:
    state: the fingerprint of the state at the last step.
    products: of sample, evaluate and export, by (command, step).
  """

  state: Any
  products: Mapping[tuple[str, int], Any]


def write_data(folder: Path, name: str, seed: int) -> None:
  """Prepares a small data set of images or, with 'texts' in its name, of texts."""
  import numpy as np
  import tensorflow_datasets as tfds

  draw = np.random.default_rng(seed)
  of_text = 'texts' in name

  def examples(number: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in range(number):
      if of_text:
        yield index, {'text': ' '.join(draw.choice(['ab', 'cad', 'bead', 'face'], 12))}
      else:
        image = draw.integers(0, 256, (16, 16, 1), np.uint8)
        yield index, {'image': image, 'label': (index * 7 + seed) % 4}

  class Small(tfds.core.ShardBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      images = {
        'image': tfds.features.Tensor(shape=(16, 16, 1), dtype=np.uint8),
        'label': tfds.features.ClassLabel(names=['cat', 'cow', 'dog', 'owl']),
      }
      features = {'text': tfds.features.Text()} if of_text else images
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _shard_iterators_per_split(self, dl_manager):
      return {'train': [lambda: examples(24)] * 2, 'test': [lambda: examples(16)]}

  Small.name = name
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    Small(data_dir=folder, file_format='array_record').download_and_prepare()


def training_flags(place: Place, family: str, *more: str) -> list[str]:
  base = place.run(FAMILIES[family].base) if FAMILIES[family].base else ''
  return [
    'train.py',
    *(flag.format(base=base) for flag in FAMILIES[family].flags),
    *_SHORT,
    *more,
  ]


def prepare_data(place: Place) -> None:
  """Writes the data sets, and others that have the same form."""
  for name in ('fuzz_images', 'fuzz_texts'):
    write_data(place.data, name, 0)
    write_data(place.root / 'other_data', name, 1)


def prepare_run(place: Place, family: str) -> None:
  """Trains the undamaged runs of a family, and what else its cases need, unless they are there."""
  for name in ('classifier', FAMILIES[family].base, family):
    for folder, seed in ((place.run(name), 0), (place.other(name), 1)):
      if name and not folder.exists():
        more = (f'--config.train.steps={_STEPS}', f'--config.train.seed={seed}')
        _must(run_here(training_flags(place, name, f'--workdir={folder}', *more)))


def expect(place: Place, family: str) -> Expected:
  """Runs every command on an undamaged copy."""
  run = _fresh(place, family)
  products = {}
  for command in ('sample', 'evaluate', 'export'):
    for step in _SAVED:
      _clear(place.out)
      done = run_here(words_of(place, family, command, [f'--checkpoint={step}']))
      if command != 'export' or 'gpt' in (family, FAMILIES[family].base):
        _must(done)
        products[command, step] = product(place, command)
  _must(run_here(words_of(place, family, 'train')))
  return Expected(state_of(run), products)


def _must(done: Done) -> None:
  if done.code or done.trace:
    raise RuntimeError(f'an undamaged run fails:\n{done.output}\n{done.trace}')


def words_of(place: Place, family: str, command: str, more: Sequence[str] = ()) -> list[str]:
  """The command line of a command on the case's run."""
  workdir, out = f'--workdir={place.case / "run"}', place.out
  kind = FAMILIES[family]
  return {
    'train': ['train.py', workdir, f'--config.train.steps={_END}', *more],
    'sample': ['sample.py', workdir, *kind.sample, f'--out={out}/sample.{kind.ending}', *more],
    'evaluate': ['evaluate.py', workdir, f'--out={out}/metrics.json', *more],
    'export': ['tools.export_hf', workdir, f'--out={out}/exported', *more],
    'list': ['tools.runs', str(place.case), *more],
  }[command]


def product(place: Place, command: str) -> Any:
  """What a command made, in a form that can be compared; None for nothing."""
  if command == 'evaluate':
    path = place.out / 'metrics.json'
    if not path.exists():
      return None
    content = json.loads(path.read_text())
    for timed in ('made_by',):
      content.pop(timed)
    return _without_times(content)
  return contents(place.out) or None


def _without_times(value: Any) -> Any:
  """Figures without those of the clock."""
  if isinstance(value, dict):
    return {k: _without_times(v) for k, v in value.items() if not k.startswith('speed/')}
  return [_without_times(each) for each in value] if isinstance(value, list) else value


def state_of(run: Path) -> Any:
  """The fingerprint of every leaf at the last step; None where there is no such checkpoint."""
  path = run / 'checkpoints' / str(_END) / 'meta' / 'metadata'
  return json.loads(path.read_text())['fingerprint'] if path.exists() else None


def contents(folder: Path) -> dict[str, str]:
  """The hash of every file below a folder, and the target of every link, by its path."""
  found = {}
  for path in sorted(folder.rglob('*')):
    name = str(path.relative_to(folder))
    if path.is_symlink():
      found[name] = f'link to {os.readlink(path)}'
    elif path.is_file() and os.access(path, os.R_OK):
      found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
  return found


def _fresh(place: Place, family: str) -> Path:
  _clear(place.case)
  _clear(place.out)
  run = place.case / 'run'
  shutil.copytree(place.run(family), run)
  return run


def _clear(folder: Path) -> None:
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)


# --- what is damaged ------------------------------------------------------------------------------


class Damaged(NamedTuple):
  """What was damaged.

  Attributes:
    words: for people.
    paths: of files or folders below the run's folder, as they begin.
    data: whether the examples are others, or may be.
    free: whether an option of the config changed that may.
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
  """What a process leaves that was killed while it wrote."""
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
  """What became of a case.

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
  run = _fresh(place, case.family)
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
  faults = [*_of_end(done), *_of_files(case, found, before, contents(place.case))]
  outcome = 'refused' if done.code == 2 else 'unchanged'
  if not done.code and case.command == 'train':
    faults += _of_training(run, expected)
    outcome = 'recovered' if 'damaged' in done.output or 'restart' in done.output else outcome
  elif case.command in ('sample', 'evaluate', 'export'):
    made, more = product(place, case.command), _of_product(case, found, done, place, expected)
    faults += more
    outcome = 'recovered' if made is not None and 'damaged' in done.output else outcome
  words_done = '; '.join(each.words for each in found)
  return Verdict(words_done, ' '.join(words), outcome, tuple(faults), done)


def _of_end(done: Done) -> list[str]:
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
  if steps != sorted({*steps}) or steps[-1:] != [_END]:
    faults.append(f'metrics.jsonl has the steps {steps}')
  return faults


def _of_product(
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
  known = {step: expected.products.get((case.command, step)) for step in _SAVED}
  steps = [step for step, each in known.items() if each == made]
  if not steps:
    return ['what it made is none of an undamaged run']
  given = dict(word.lstrip('-').split('=', 1) for word in case.more)
  asked = given.get('checkpoint', 'latest')
  if asked == 'latest':
    # One that was deleted as a whole cannot be told from one that was never saved.
    folder = place.case / 'run' / 'checkpoints'
    skipped = [s for s in _SAVED if s > max(steps) and os.path.lexists(folder / str(s))]
    silent = [step for step in skipped if f'checkpoint {step}' not in done.output]
    return [f'silently took checkpoint {max(steps)}, not {silent}'] if silent else []
  if asked.isdigit():
    return [] if int(asked) in steps else [f'asked for {asked}, took {steps}']
  return []


# What a training may write, or remove to write it anew.
_WRITTEN = ('run.json', 'config.json', 'tokenizer.json', 'metrics.jsonl', '.lock', 'events',
            'samples/', f'checkpoints/{_END}/')  # fmt: skip


def _of_files(
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
    if any(name.startswith(path) for path in written):
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


@contextlib.contextmanager
def opened() -> Iterator[Place]:
  """A folder for runs and data, which is removed afterwards."""
  with tempfile.TemporaryDirectory(prefix='fuzz-runs-') as root:
    place = Place(Path(root).resolve())
    settings = {'TFDS_DATA_DIR': str(place.data), 'ATELIER_CACHE': str(place.cache)}
    with mock.patch.dict(os.environ, settings), own_process_settings():
      prepare_data(place)
      yield place


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
