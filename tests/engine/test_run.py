"""A run's folder on a disk and in a bucket: claimed by one config, read back, logged to."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

import files
from data.spec import Spec
from data.text import tokenization
from engine import report, run
from errors import UserError

SPEC = Spec('some', 'train', 3, {'tokens': ((4,), 'int32')}, 0, 'abc', (), '{"kind": "byte"}')


@pytest.fixture(params=['disk', 'bucket'])
def workdir(request, tmp_path, bucket):
  """The name of a folder that is not there yet, of either kind."""
  return str(tmp_path / 'new' / 'run') if request.param == 'disk' else 'gs://some/new/run'


REPORT = {'trackers': ['tensorboard']}


# Those of `config.data` that runs of before may lack.
SECTIONS = {
  'image': {'size': (), 'channels': 0, 'resize': 'center'},
  'table': {'target': '', 'ignore': (), 'categories': (), 'missing': 'refuse'},
  'jsonl': {'text': 'text', 'label': ''},
}


def config(seed=0, steps=10, **data):
  train, text = {'steps': steps, 'seed': seed}, {'tokenizer': 'a'}
  return ConfigDict({'train': train, 'data': {'text': text, **SECTIONS, **data}, 'report': REPORT})


def test_what_is_claimed_is_read_back(workdir):
  assert run.claim(workdir, config(), SPEC) == []
  assert run.read_config(workdir) == json.loads(config().to_json())
  description = run.read_description(workdir)
  assert Spec.from_json(description['data']) == SPEC._replace(tokenizer='')
  assert 'jax' in description['versions']
  # The tests run in a checkout, or in what was unpacked without one.
  assert description['code'] is None or len(description['code']['commit']) >= 40
  assert run.read_tokenizer(workdir) == SPEC.tokenizer
  names = [path.name for path in files.entries(files.path(workdir))]
  assert names == ['config.json', 'run.json', 'tokenizer.json']


def test_a_run_that_is_older_than_a_section_goes_on(workdir):
  older = config()
  del older.report, older.data.image, older.data.table, older.data.jsonl
  run.claim(workdir, older, SPEC)
  assert 'report' not in files.read_json(files.path(workdir) / 'config.json')
  assert run.read_config(workdir)['report'] == REPORT
  assert run.claim(workdir, config(), SPEC) == []
  new = config()
  new.report.trackers = ['wandb']
  changed = ["report.trackers: ['tensorboard'] → ['wandb']"]
  assert run.claim(workdir, new, SPEC) == changed
  new.data.image.size = (32,)
  with pytest.raises(UserError, match=r'\(data\.image\.size: \[\] → \[32\]\)'):
    run.claim(workdir, new, SPEC)


def test_files_that_moved_may_be_named_anew(workdir, tmp_path, monkeypatch):
  """Where their examples are those that the run was trained on."""
  monkeypatch.chdir(tmp_path)
  run.claim(workdir, config(name='folder:a', test_name=''), SPEC)
  assert run.claim(workdir, config(name=f'folder:{tmp_path}/a', test_name=''), SPEC) == []
  moved = config(name=f'folder:{tmp_path}/b', test_name='')
  with pytest.raises(UserError, match=r'data\.name: folder:.*/a → folder:.*/b'):
    run.claim(workdir, moved, SPEC._replace(identity='other'))
  with pytest.raises(UserError, match=r'data\.name'):
    run.claim(workdir, config(name='mnist5k', test_name=''), SPEC)
  assert len(run.claim(workdir, moved, SPEC)) == 1
  assert run.read_config(workdir)['data']['name'] == f'folder:{tmp_path}/b'


def test_another_config_is_refused_and_a_longer_run_is_not(workdir):
  run.claim(workdir, config(), SPEC)
  with pytest.raises(UserError, match=r'holds a run of another config \(train.seed: 0 → 1\)'):
    run.claim(workdir, config(seed=1), SPEC)
  assert run.claim(workdir, config(steps=20), SPEC) == ['train.steps: 10 → 20']
  assert run.read_config(workdir)['train']['steps'] == 20


def test_other_examples_are_refused_where_there_are_checkpoints(workdir):
  """And the description of those that the run was trained on stays."""
  run.claim(workdir, config(), SPEC)
  other = SPEC._replace(identity='other', class_names=('a',))
  assert run.claim(workdir, config(), other) == [] == run.claim(workdir, config(), SPEC)
  files.write_text(f'{workdir}/checkpoints/1/x', '')
  with pytest.raises(UserError, match=r'some train are not .* \(as many, but others\); put that '):
    run.claim(workdir, config(), other)
  assert Spec.from_json(run.read_description(workdir)['data']) == SPEC._replace(tokenizer='')


def test_what_is_no_run_or_damaged_is_named(workdir):
  with pytest.raises(UserError, match=r'is no run: there is no .*run\.json'):
    run.read_config(workdir)
  run.claim(workdir, config(), SPEC)
  files.write_text(f'{workdir}/config.json', '{')
  with pytest.raises(UserError, match=r'config\.json is damaged'):
    run.read_config(workdir)


def test_logs_and_pictures_are_written_and_go_on_from_the_checkpoint(workdir):
  shown = report.Shown(('lane_0',), evaluators=(), tokenizer='', options={}, best='', trackers=())
  for first, steps in ((0, (10, 20, 30)), (20, (40,))):
    made = report.Report(workdir, first, 40, shown, visible=True)
    for step in steps:
      made.scalars(step, 2.0, [{'model/loss': step / 2}])
    made.samples(steps[-1], 'image', [np.zeros((4, 2, 2, 3), np.float32)])
    made.close()
  lines = (files.path(workdir) / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [10, 20, 40]
  names = [path.name for path in files.entries(files.path(workdir) / 'samples')]
  assert names == ['step_00000030.png', 'step_00000040.png']


@pytest.mark.parametrize('place', ['/dev/null', '/dev/null/run', '{}/file', '{}/file/run'])
def test_a_work_folder_that_cannot_be_made_is_one_sentence(place, tmp_path):
  (tmp_path / 'file').write_text('')
  place = place.format(tmp_path)
  with pytest.raises(UserError, match=r'cannot write to --workdir=.* is no folder; choose another'):
    run.check_place(place)
  with pytest.raises(UserError, match=r'cannot write to --workdir=.* is no folder; choose another'):
    with run.only_writer(place):
      pass


def test_a_folder_that_the_system_refuses_is_one_sentence(tmp_path, monkeypatch):
  def refuse(*arguments, **options):
    raise OSError(30, 'Read-only file system')

  monkeypatch.setattr(files, 'make_folder', refuse)
  with pytest.raises(UserError, match='can only be read'), run.only_writer(str(tmp_path / 'run')):
    pass


def test_a_run_that_was_removed_is_noticed(workdir):
  run.claim(workdir, config(), SPEC)
  run.check_still_there(workdir)
  (files.path(workdir) / 'config.json').unlink()
  with pytest.raises(UserError, match='was moved or removed while it was trained in'):
    run.check_still_there(workdir)


def test_sources_that_moved_may_be_named_anew(tmp_path):
  def started_from(run, tokenizer='byte'):
    text = {'text': {'tokenizer': tokenizer}, **SECTIONS}
    return ConfigDict({'data': text, 'init_from': {'model': {'run': run}}, 'report': REPORT})

  made = tokenization.train('byte', [], 0, ()).to_json()
  base, moved, other = (tmp_path / name for name in ('base', 'moved', 'other'))
  for folder in (base, other):
    files.write_text(folder / 'tokenizer.json', made)
  workdir, spec = str(tmp_path / 'run'), SPEC._replace(tokenizer=made)
  run.claim(workdir, started_from(str(base), str(base)), spec)
  # While it is there, another run is another source.
  with pytest.raises(UserError, match=r'init_from\.model\.run'):
    run.claim(workdir, started_from(str(other), str(base)), spec)
  base.rename(moved)
  changes = run.claim(workdir, started_from(str(moved), str(moved)), spec)
  assert [line.split(':')[0] for line in changes] == ['data.text.tokenizer', 'init_from.model.run']
  moved.rename(base)
  files.write_text(other / 'tokenizer.json', tokenization.train('byte', [], 0, ('end',)).to_json())
  base.rename(moved)
  with pytest.raises(UserError, match=r'data\.text\.tokenizer'):
    run.claim(workdir, started_from(str(moved), str(other)), spec)
