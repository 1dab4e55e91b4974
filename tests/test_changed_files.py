"""Runs of files of one's own that were changed, moved or removed since they were trained on."""

import shutil

import pytest

from commands import config_flags
from commands.evaluate_run import Request, evaluate_run
from engine import loop
from errors import UserError
from tests import runs
from tests.data.own.files_of_ours import write_classes, write_picture
from tests.golden import tiny


@pytest.fixture
def made(tmp_path, monkeypatch):
  """The folder of pictures that a run at its start is of, and its config."""
  monkeypatch.chdir(tmp_path)
  for split in ('train', 'test'):
    write_classes(tmp_path / 'x' / split, each=4, first=100 * (split == 'test'))
  config = tiny.config_of('mlp')
  config.modules.model.widths = (4,)
  config.data.name = 'folder:x'
  config.train.update(steps=2, epochs=0.0)
  config.evaluators = {'test': config.evaluators.test.to_dict() | {'metrics': {}}}
  config.checkpoint.best = ''
  config_flags.complete_init_from(config)
  config_flags.complete_paths(config)
  runs.saved_run(tmp_path / 'run', config)
  return tmp_path / 'x', config


def evaluated(capsys):
  evaluate_run(Request('run', 'x.json'), ['evaluate.py'])
  return capsys.readouterr().out


def test_files_that_changed_are_told_and_trained_on_no_further(made, capsys):
  folder, config = made
  assert 'changed ' not in evaluated(capsys)
  write_picture(folder / 'train' / 'cat' / 'new.png', 999)
  told = f'the examples of folder:{folder} train are not those that the run was trained on '
  assert f'changed  {told}(8 then, 9 now)' in evaluated(capsys)
  with pytest.raises(UserError) as caught:
    loop.train(config, 'run')
  assert str(caught.value) == (
    f'{told}(8 then, 9 now); put the files of folder:{folder} back as they were, or train in '
    'another --workdir'
  )
  (folder / 'train' / 'cat' / 'new.png').unlink()
  write_picture(folder / 'test' / 'cat' / 'new.png', 999)
  assert 'changed ' not in (out := evaluated(capsys)) and '9 examples' in out


def test_files_that_moved_or_are_gone(made, capsys, tmp_path):
  folder, config = made
  folder.rename(tmp_path / 'y')
  config.data.name = f'folder:{tmp_path}/y'
  loop.train(config, 'run')
  out = capsys.readouterr().out
  assert f'changed  data.name: folder:{folder} → folder:{tmp_path}/y' in out
  assert 'finished step 2 of 2' in out
  shutil.rmtree(tmp_path / 'y')
  assert 'changed ' not in evaluated(capsys)
