"""Small runs of several families, the scripts run on them in this process, and what they give."""

import contextlib
import hashlib
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from absl import flags

from engine import runtime

ROOT = Path(__file__).parents[1]
# Steps of the runs, those of their checkpoints, and where a resumed run ends.
STEPS, SAVED, END = 12, (4, 8, 12), 16
BEST = 'best'
_PATIENCE = 180  # seconds that a command may take

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
      '--config.evaluators.samples.features.side=2',
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
    """The copy of a run, and of its data, that a case damages."""
    return self.root / 'case'

  @property
  def out(self) -> Path:
    return self.root / 'out'


class Expected(NamedTuple):
  """The outputs of a run without damage, to compare with.

  Attributes:
    state: the fingerprint of the state at the last step.
    products: of sample, evaluate and export, by (command, step).
  """

  state: Any
  products: Mapping[tuple[str, int | str], Any]


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
        more = (f'--config.train.steps={STEPS}', f'--config.train.seed={seed}')
        _must(run_here(training_flags(place, name, f'--workdir={folder}', *more)))


def expect(place: Place, family: str) -> Expected:
  """Runs every command on an undamaged copy."""
  run = fresh_copy(place, family)
  products = {}
  for command in ('sample', 'evaluate', 'export'):
    for step in (*SAVED, BEST):
      clear(place.out)
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
    'train': ['train.py', workdir, f'--config.train.steps={END}', *more],
    'sample': ['sample.py', workdir, *kind.sample, f'--out={out}/sample.{kind.ending}', *more],
    'evaluate': ['evaluate.py', workdir, f'--out={out}/metrics.json', *more],
    'export': ['tools.export_hf', workdir, f'--out={out}/exported', *more],
    'list': ['tools.runs', str(place.case), *more],
  }[command]


def product(place: Place, command: str) -> Any:
  """The output of a command in a form that can be compared; None without output."""
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
  path = run / 'checkpoints' / str(END) / 'meta' / 'metadata'
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


def fresh_copy(place: Place, family: str) -> Path:
  clear(place.case)
  clear(place.out)
  run = place.case / 'run'
  shutil.copytree(place.run(family), run)
  return run


def clear(folder: Path) -> None:
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)


@contextlib.contextmanager
def opened() -> Iterator[Place]:
  """A folder for runs and data, which is removed afterwards."""
  with tempfile.TemporaryDirectory(prefix='fuzz-runs-') as root:
    place = Place(Path(root).resolve())
    settings = {'TFDS_DATA_DIR': str(place.data), 'ATELIER_CACHE': str(place.cache)}
    with mock.patch.dict(os.environ, settings), own_process_settings():
      prepare_data(place)
      yield place
