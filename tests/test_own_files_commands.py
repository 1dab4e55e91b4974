"""Commands of docs/use_your_own_files.md and docs/predict.md, as written, on small made files."""

import csv
import shlex

import numpy as np
import PIL.Image
import pytest

from tests import documented_commands, runs
from tests.conftest import ROOT
from tests.data.own.files_of_ours import write_classes, write_picture

COMMANDS = [
  command
  for page in ('use_your_own_files.md', 'predict.md')
  for command in documented_commands.of_page((ROOT / 'docs' / page).read_text())
]


def words_of(part, tmp_path):
  """The words of the only command that holds `part`, with its files and runs in `tmp_path`."""
  (command,) = [command for command in COMMANDS if part in command]
  command = command.replace('runs/', f'{tmp_path}/runs/').replace('csv:', f'csv:{tmp_path}/')
  for name in ('--input=', '--out='):
    command = command.replace(name, f'{name}{tmp_path}/')
  return shlex.split(command)[1:]


def done(script, words, tmp_path, *more):
  ended = script(*words, *more, HOME=str(tmp_path))
  assert ended.returncode == 0, ended.stderr
  return ended.stdout


def write_table(path, header, rows):
  with open(path, 'w', newline='') as file:
    csv.writer(file).writerows([header, *rows])


@pytest.mark.slow
def test_a_table_is_trained_on_and_predicted(script, tmp_path):
  rng = np.random.default_rng(0)
  header = ['name', 'ticket', 'sex', 'class', 'age', 'survived']
  ages, sexes = rng.uniform(1, 80, 120).round(1), rng.choice(['male', 'female'], 120)
  rows = [[f'n{i}', i, sexes[i], i % 3, ages[i], i % 2] for i in range(120)]
  write_table(tmp_path / 'titanic.csv', header, rows)
  write_table(tmp_path / 'patients.csv', ['age', 'class', 'sex'], [[33, 1, 'male'], [9, 0, 'male']])
  workdir = f'--workdir={tmp_path}/runs/tabular'
  train = words_of('csv:titanic.csv', tmp_path)
  done(script, train, tmp_path, '--config.train.steps=20', '--config.train.epochs=0', workdir)
  told = done(script, words_of('patients.csv', tmp_path), tmp_path)
  assert [line.split()[1] in '01' for line in told.splitlines()[1:]] == [True, True]
  write_table(tmp_path / 'patients.csv', ['age', 'class'], [[33, 1]])
  refused = script(*words_of('patients.csv', tmp_path))
  assert refused.returncode == 2 and 'lacks columns that the run was trained on: sex' in (
    refused.stderr
  )


@pytest.mark.slow
def test_pictures_are_trained_on_and_predicted(script, tmp_path):
  write_classes(tmp_path / 'pictures', each=20)
  for i in range(3):
    write_picture(tmp_path / 'photos' / f'{i}.png', i, size=(20 + i, 30))
  workdir = f'--workdir={tmp_path}/runs/cnn'
  small = [*runs.SMALL_CNN[1:], '--config.train.steps=2', workdir]
  done(script, words_of('folder:~/pictures', tmp_path), tmp_path, *small)
  told = done(script, words_of('--input=photos', tmp_path), tmp_path)
  assert 'written' in told and len((tmp_path / 'photos.csv').read_text().splitlines()) == 4
  PIL.Image.new('L', (5, 5)).save(tmp_path / 'a.png')
  assert 'a.png' in done(script, ['predict.py', workdir, f'--input={tmp_path}/a.png'], tmp_path)
