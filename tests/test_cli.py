"""What a person meets at the terminal: mistakes are one sentence, and files are where told."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from commands import cli
from tests import runs
from tests.conftest import ROOT

GAN = '--config=configs/gan.py'

MISTAKES = {
  'no config': (['train.py'], 'give --config'),
  'unknown config': (['train.py', '--config=configs/gna.py'], 'did you mean "configs/gan.py"'),
  'unknown flag': (['train.py', GAN, '--workdr=x'], 'workdr'),
  'end of a place': (
    ['train.py', GAN, '--batch_size=3'],
    'there is no flag --batch_size (did you mean "--config.data.batch_size"?)',
  ),
  'neither true nor false': (
    ['train.py', GAN, '--dry_run=2'],
    '--dry_run=2: Non-boolean argument to boolean flag; --help',
  ),
  'empty folder': (['train.py', GAN, '--workdir='], '--workdir= names no folder'),
  'unknown key': (
    ['train.py', GAN, '--config.train.step=3'],
    '--config.train.step (did you mean "steps"?)',
  ),
  'unknown nested key': (
    ['train.py', GAN, '--config.optimizer.discriminater.clip=1'],
    'did you mean "discriminator"',
  ),
  'a section': (['train.py', GAN, '--config.train=3'], 'is a section'),
  'wrong type': (['train.py', GAN, '--config.train.steps=1.5'], '1.5'),
  'word': (['train.py', GAN, 'steps=3'], 'unexpected argument "steps=3"'),
  'unknown module': (
    ['train.py', GAN, '--config.modules.generator.name=mlp.Generater'],
    'did you mean "mlp.Generator"',
  ),
  'unknown optimizer': (
    ['train.py', GAN, '--config.optimizer.generator.name=adamm'],
    'is no optimizer (did you mean "adam',
  ),
  'unknown data set': (['train.py', '--config=configs/gan.py:mnist5'], 'mnist5k'),
  'bad sampling': (['sample.py', '--workdir=nowhere', '--out=x.jpg'], 'is no run'),
  'no run': (['sample.py', '--workdir=nowhere'], 'nowhere is no run'),
  'only a folder': (['train.py', '--workdir=nowhere'], 'nowhere holds no run'),
  'no workdir': (['sample.py'], 'give --workdir'),
}


# Those whose --workdir, or what stands for it, is the mistake.
_OWN_FOLDER = ('unknown flag', 'empty folder', 'only a folder')


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_are_one_sentence(mistake, script, tmp_path):
  arguments, part = MISTAKES[mistake]
  if arguments[0] == 'train.py' and mistake not in _OWN_FOLDER:
    arguments = [*arguments, f'--workdir={tmp_path}/run']
  done = script(*arguments, TFDS_DATA_DIR=str(tmp_path))
  assert done.returncode == 2, done.stderr
  assert 'Traceback' not in done.stderr
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr
  assert part in done.stderr
  assert not (tmp_path / 'run').exists(), (
    'nothing may be made before the config is known to be good'
  )


@pytest.mark.parametrize(
  'flags, part',
  [
    (
      ['--config=configs/vae.py', '--config.objective.kl_weight=-1'],
      'config.objective.kl_weight=-1.0 must be at least 0',
    ),
    (
      ['--config=configs/conv_vae.py', '--config.modules.encoder.widths=8,8,8'],
      "the image's 28 × 28 must be a multiple of 8",
    ),
  ],
)
def test_values_that_the_data_refuses_are_one_sentence(flags, part, script, tmp_path):
  """Found once the data is known, which may have to be prepared first."""
  done = script('train.py', *flags, f'--workdir={tmp_path}/run')
  assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
  assert part in done.stderr.splitlines()[-1]
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A short run, and what training it printed."""
  workdir = tmp_path_factory.mktemp('cli') / 'run'
  done = runs.train(
    *runs.SMALL_GAN, *runs.every(5, 10, 10), f'--workdir={workdir}', '--config.train.steps=20',
    '--config.profile', '--config.train.dispatch=2',
  )  # fmt: skip
  return workdir, done.stdout


def test_a_run_says_what_it_is_and_writes_what_it_promises(finished):
  workdir, printed = finished
  assert '1 × cpu' in printed and 'mesh lane 1 × data 1' in printed
  assert 'mnist5k train: 4,000 examples 28 × 28 × 1, 10 classes' in printed
  assert 'discriminator' in printed and 'parameters' in printed
  assert f'python sample.py --workdir={workdir}' in printed
  assert {p.name for p in (workdir / 'samples').iterdir()} == {
    'step_00000010.png',
    'step_00000020.png',
  }
  assert json.loads((workdir / 'config.json').read_text())['train']['steps'] == 20
  assert json.loads((workdir / 'run.json').read_text())['versions']['jax']
  assert list(workdir.glob('events.out.tfevents.*'))
  assert list((workdir / 'profile').rglob('*.xplane.pb'))
  lines = runs.metrics(workdir)
  assert [line['step'] for line in lines] == [5, 10, 15, 20]
  for line in lines:
    assert {'step', 'wall_time', 'steps_per_second', 'generator/loss', 'discriminator/loss'} <= set(
      line
    )
  evaluated = [i for i, line in enumerate(lines) if 'test/generator_loss' in line]
  compared = [i for i, line in enumerate(lines) if 'samples/fd_pixels4_32-test' in line]
  assert (evaluated, compared) == ([1, 3], [3])


def test_samples_need_nothing_but_the_run(finished, script, tmp_path):
  workdir, _ = finished
  empty = {'ATELIER_CACHE': str(tmp_path / 'cache'), 'TFDS_DATA_DIR': str(tmp_path / 'none')}
  for seed, out in ((3, 'a.npz'), (3, 'b.npz'), (4, 'c.npz')):
    done = script(
      'sample.py', f'--workdir={workdir}', '--num=6', f'--seed={seed}', f'--out={tmp_path / out}',
      **empty,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
  a, b, c = (np.load(tmp_path / f'{name}.npz')['image'] for name in 'abc')
  assert a.shape == (6, 28, 28, 1) and a.dtype == np.float32
  assert a.min() >= 0 and a.max() <= 1
  np.testing.assert_array_equal(a, b)
  assert np.abs(a - c).max() > 1e-3


def test_a_grid_is_a_picture(finished, script, tmp_path):
  workdir, _ = finished
  done = script(
    'sample.py', f'--workdir={workdir}', '--num=9', f'--out={tmp_path}/x/grid.png',
    '--checkpoint=best',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  with Image.open(tmp_path / 'x' / 'grid.png') as picture:
    assert picture.size[0] == picture.size[1] >= 256


def test_a_checkpoint_that_is_not_there(finished, script):
  workdir, _ = finished
  done = script('sample.py', f'--workdir={workdir}', '--checkpoint=7')
  assert done.returncode == 2 and 'one of the steps saved: 10, 20' in done.stderr


def test_going_on_with_more_steps(finished, script):
  workdir, _ = finished
  done = script(
    'train.py', *runs.SMALL_GAN, *runs.every(5, 10, 10), f'--workdir={workdir}',
    '--config.train.steps=25',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'changed  train.steps: 20 → 25' in done.stdout
  assert 'resumed  from step 20 of 25' in done.stdout


def test_a_run_goes_on_from_its_folder_alone(finished, script):
  workdir, _ = finished
  done = script('train.py', f'--workdir={workdir}', '--config.train.steps=20')
  assert done.returncode == 0, done.stderr
  assert 'complete step ' in done.stdout and 'of 20 in' in done.stdout
  done = script('train.py', f'--workdir={workdir}', '--config.train.seed=5')
  assert done.returncode == 2 and 'train.seed: 0 → 5' in done.stderr


def test_replacing_an_optimizer_drops_its_options(script, tmp_path):
  done = script(
    'train.py', *runs.SMALL_GAN, f'--workdir={tmp_path}', '--config.train.steps=2',
    '--config.optimizer.generator.name=sgd',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'config.optimizer.generator.b1: it belongs to adam' in done.stderr


@pytest.mark.parametrize(
  'exploding, named, step',
  # What one player broke shows in the next one's loss: at once, or in the step after.
  [('discriminator', 'generator', 1), ('generator', 'discriminator', 2)],
)
def test_not_finite_names_player_step_and_module(script, tmp_path, exploding, named, step):
  done = script(
    'train.py', *runs.SMALL_GAN, *runs.every(5, 5, 50), f'--workdir={tmp_path}',
    '--config.train.steps=50', f'--config.optimizer.{exploding}.name=sgd',
    f'--config.optimizer.{exploding}.learning_rate=1e38', '--config.objective.penalty_every=1',
    f'--config.optimizer.{exploding}.schedule.name=constant',
  )  # fmt: skip
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  assert f'training stopped at step {step}: the loss of player "{named}" is nan' in done.stderr
  assert f'gradient of {named} is not finite' in done.stderr
  assert f'updates of "{exploding}" that are too large (learning rate 1e+38)' in done.stderr
  assert f'try --config.optimizer.{exploding}.learning_rate=0.001, then ' in done.stderr
  assert (tmp_path / 'diagnosis' / str(step) / 'diagnosis.json').exists()


def test_two_trainings_in_one_folder_are_refused(tmp_path, script):
  # Long enough not to be over before the second one comes.
  length = ('--config.train.steps=1000000', *runs.every(5, 500000, 500000))
  arguments = (*runs.SMALL_GAN, *length, f'--workdir={tmp_path}')
  refused = []

  def second_is_refused():
    if not (tmp_path / 'metrics.jsonl').exists():
      return False
    refused.append(script('train.py', *arguments))
    return True

  runs.kill_when(arguments, signal.SIGKILL, second_is_refused)
  assert refused[0].returncode == 2
  assert 'another process is training' in refused[0].stderr


@pytest.mark.slow
def test_streamed_and_resident_train_alike(tmp_path, script):
  for name, more in (('resident', ()), ('streamed', ('--config.data.resident_mb=0',))):
    done = script(
      'train.py', *runs.SMALL_GAN, *runs.every(5, 10, 10), f'--workdir={tmp_path / name}',
      '--config.train.steps=10', *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
  assert 'streamed' in done.stdout
  first, second = runs.leaves(tmp_path / 'resident'), runs.leaves(tmp_path / 'streamed')
  for name in first:
    if first[name].dtype.kind == 'f':
      np.testing.assert_allclose(first[name], second[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
  'fault, code', [('print("x" * 99, flush=True)', 141), ('raise BrokenPipeError', 1)]
)
def test_only_a_reader_that_ends_is_no_bug(fault, code):
  """`python evaluate.py … | head -1`; other broken pipes keep their traceback."""
  program = f"""
from commands import cli
def main():
  for _ in range(10_000):
    {fault}
cli.launch(main, ['script'])
"""
  reader = subprocess.PIPE if code == 141 else subprocess.DEVNULL
  process = subprocess.Popen(
    [sys.executable, '-c', program], cwd=ROOT, stdout=reader, stderr=subprocess.PIPE, text=True
  )
  if code == 141:
    process.stdout.close()
  said = process.stderr.read()
  assert process.wait(60) == code, said
  assert ('Traceback' in said) == (code == 1)
  assert ('that read the output has ended' in said) == (code == 141)


# --- flags ----------------------------------------------------------------------------------------


def test_help_lists_the_flags_of_the_script(script):
  for words in (
    ('train.py', '-h'),
    ('sample.py', '--help'),
    ('sample.py', '--help', '--workdir=x'),
    ('predict.py', '--help'),
  ):
    done = script(*words)
    assert (done.returncode, done.stderr) == (0, ''), done.stderr
    assert '--workdir: ' in done.stdout and '--label' not in done.stdout
    assert ('--config: ' in done.stdout) == (words[0] == 'train.py')
    assert '--logtostderr' not in done.stdout, 'absl has flags of its own'
  done = script('train.py', '--config=configs/gan.py', '--help')
  assert '--config.optimizer.generator.b1=0.0\n' in done.stdout
  assert 'Decay of the mean of gradients. A number, at least 0 and below 1.\n' in done.stdout
  assert '--config.optimizer.generator.eps (1e-08 if not given)\n    Added to' in done.stdout
  assert 'Length of the run, unless `epochs` ends it sooner. A whole number,' in done.stdout
  assert '--config.init_from.discriminator.run=\n' in done.stdout


@pytest.fixture(scope='module')
def cgan(tmp_path_factory):
  config = runs.small(cli.load(f'{ROOT}/configs/cgan.py'))
  return runs.saved_run(tmp_path_factory.mktemp('cgan') / 'run', config)


def test_help_lists_the_options_of_the_runs_sampler(cgan, finished, script):
  said = ' '.join(script('sample.py', f'--workdir={cgan}', '--help').stdout.split())
  assert '--label: Option of the sampler. Class of every sample' in said
  assert 'It must be at least 0 and at most 9.' in said and '--config.mesh.fsdp=1' in said
  assert '--label' not in script('sample.py', f'--workdir={finished[0]}', '-h').stdout


def test_an_option_that_the_sampler_does_not_declare_is_refused(cgan, script):
  done = script('sample.py', f'--workdir={cgan}', '--guidance=2')
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert 'there is no flag --guidance' in done.stderr and '--label' in done.stderr
  done = script('sample.py', f'--workdir={cgan}', '--label=three')
  assert done.returncode == 2 and 'label' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_samples_are_the_same_on_another_mesh(cgan, script, tmp_path):
  rules = '(("generator/hidden.*kernel$", (None, "fsdp")),)'
  for out, more in (
    ('one', {}),
    ('eight', dict(devices=8, words=('--mesh=data:1,fsdp:8', f'--config.sharding={rules}'))),
  ):
    words = more.pop('words', ())
    done = script('sample.py', f'--workdir={cgan}', '--num=3', '--label=4', *words,
                  f'--out={tmp_path}/{out}.npz', **more)  # fmt: skip
    assert done.returncode == 0, done.stderr
  one, eight = (np.load(tmp_path / f'{name}.npz')['image'] for name in ('one', 'eight'))
  np.testing.assert_allclose(one, eight, atol=1e-5)


LATE = """
import asyncio, gc
from commands import cli

async def fails():
  raise ValueError('the first one was told already')

async def leaves_a_task():
  asyncio.ensure_future(fails())
  await asyncio.sleep(0.01)

def main():
  asyncio.run(leaves_a_task())
  gc.collect()
  print('ended')

cli.launch(main, ['script'])
"""


def test_what_fails_in_the_background_after_an_error_is_not_shown(script):
  done = script('-c', LATE)
  assert (done.returncode, done.stdout, done.stderr) == (0, 'ended\n', '')
