"""The README: its commands run, its links lead somewhere, its table is complete."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import runs
from tests.conftest import ROOT, environment
from tests.marks import slow_where

SMALL = {
  'gan': runs.SMALL_GAN,
  'dcgan': runs.SMALL_DCGAN,
  'vae': runs.SMALL_VAE,
  'cnn': runs.SMALL_CNN,
  'mlp': runs.SMALL_MLP,
  'gpt': runs.SMALL_GPT,
}
README = (ROOT / 'README.md').read_text()
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def commands(word: str) -> list[str]:
  """Shell commands of the README that begin with `word`, continued lines joined."""
  blocks = re.findall(r'```sh\n(.*?)```', README, re.S)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [line.split('#')[0].strip() for line in lines if line.startswith(word)]


def test_there_are_commands_to_test():
  assert len(commands('python train.py')) >= 5 and len(commands('python sample.py')) >= 3
  assert commands('python evaluate.py') and commands('python -m tools')
  assert commands('make demo') and commands('make test')


@pytest.mark.slow
@pytest.mark.parametrize('command', [c for c in commands('python train.py') if '…' not in c])
def test_train_commands_run(command, tmp_path):
  """As written, but small and short; a data set that is not at hand ends with its one sentence."""
  _, script, *arguments = command.split()
  name = re.search(r'configs/(\w+)\.py', command)[1]
  small = [*SMALL[name][1:], '--config.train.steps=2', f'--workdir={tmp_path}']
  done = subprocess.run(
    [sys.executable, script, *arguments, *small],
    cwd=ROOT,
    env=environment(),
    capture_output=True,
    text=True,
  )
  absent = 'cifar10' in command or 'fashion_mnist' in command
  assert done.returncode == 0 or (absent and done.returncode == 2), done.stderr
  assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_sample_evaluate_and_predict_commands_run(tmp_path, script):
  for name in ('gan', 'vae', 'cnn', 'gpt'):
    runs.train(*SMALL[name], '--config.train.steps=2', f'--workdir={tmp_path}/{name}',
               *(['--config.evaluators.likelihood.samples=5'] * (name == 'vae')))  # fmt: skip
  photos = tmp_path / 'photos'
  photos.mkdir()
  Image.new('RGB', (40, 30)).save(photos / 'a.jpg')
  scripts = ('python sample.py', 'python evaluate.py', 'python predict.py')
  for command in [command for script in scripts for command in commands(script)]:
    arguments = command.replace('runs/', f'{tmp_path}/').replace('--out=', f'--out={tmp_path}/')
    arguments = arguments.replace('--input=photos', f'--input={photos}')
    done = script(*shlex.split(arguments)[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  'command', slow_where(lambda c: 'launch' in c, commands('python -m tools'))
)
def test_tools_run(command, tmp_path, script):
  name = re.search(r'configs/(\w+)\.py', command)[1]
  small = [*SMALL[name][1:], '--config.train.steps=2', f'--workdir={tmp_path}']
  done = script(*command.split()[1:], *small)
  assert done.returncode == 0, done.stderr


def test_make_knows_the_targets():
  for target in ('setup', 'demo', 'quick', 'test', 'test-all', 'types', 'lint', 'format'):
    done = subprocess.run(['make', '-n', target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
  for target in re.findall(r'\]\(([^)#]+)\)', page.read_text()):
    assert target.startswith('http') or (page.parent / target).exists(), target


def test_the_table_has_every_config():
  for path in (ROOT / 'configs').glob('*.py'):
    if path.stem not in ('__init__', 'defaults'):
      assert f'configs/{path.name}' in README, path.name
