"""A run's folder on a disk and in a bucket: claimed by one config, read back, logged to."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

import files
from configs import gpt
from data.section import Data
from data.spec import Spec
from data.text import tokenization
from engine import report, run
from engine.build import to_plain
from errors import UserError
from options import declared_options
from tests.conftest import ROOT

SPEC = Spec('some', 'train', 3, {'tokens': ((4,), 'int32')}, 0, 'abc', (), '{"kind": "byte"}')


@pytest.fixture(params=['disk', 'bucket'])
def workdir(request, tmp_path, bucket):
  """The name of a folder that is not there yet, of either kind."""
  return str(tmp_path / 'new' / 'run') if request.param == 'disk' else 'gs://some/new/run'


REPORT = {'trackers': ['tensorboard']}
# Those of `config.data` that runs of before may lack.
SECTIONS = {
  'image': {'size': [], 'channels': 0, 'resize': 'center'},
  'table': {'target': '', 'ignore': [], 'categories': [], 'missing': 'refuse'},
  'jsonl': {'text': 'text', 'label': ''},
  'decoded_mb': 16384,
  'order_block': 0,
  'corrupt': 'refuse',
}


def config(seed=0, steps=10, **data):
  train = {'steps': steps, 'seed': seed, 'latency_hiding': False, 'determinism': 'default'}
  text = {'tokenizer': 'a'}
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


def test_a_run_that_is_older_than_an_option_goes_on(workdir, capsys):
  now, older = gpt.get_config(), gpt.get_config()
  del older.train.latency_hiding, older.train.determinism, older.objective.loss_chunks
  del older.optimizer.model.state_dtype, older.optimizer.model.offload
  for option in ('unroll', 'remat_policy', 'residual'):
    del older.modules.model[option]
  run.claim(workdir, older, SPEC)
  assert run.read_config(workdir) == json.loads(json.dumps(to_plain(now)))
  run.warn_of_edits(workdir)
  assert run.claim(workdir, now, SPEC) == [] and not capsys.readouterr().err
  # What other modules lack is none of theirs.
  other = config()
  other.modules = {'model': {'name': 'rnn'}}
  assert run.differences(run._completed({}, other.to_dict()), other.to_dict()) == {}


def test_a_run_that_is_older_than_a_section_goes_on(workdir):
  older = config()
  del older.report
  for name in SECTIONS:
    del older.data[name]
  run.claim(workdir, older, SPEC)
  assert 'report' not in files.read_json(files.path(workdir) / 'config.json')
  assert run.read_config(workdir)['report'] == REPORT
  assert run.read_config(workdir)['data'] == {
    'text': {'tokenizer': 'a'},
    **json.loads(json.dumps(SECTIONS)),
  }
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


def test_folders_that_hold_something_else_are_refused(tmp_path, monkeypatch):
  home = tmp_path / 'people' / 'me'
  home.mkdir(parents=True)
  monkeypatch.setenv('HOME', str(home))
  for name in 'ab':
    files.write_json(tmp_path / 'runs' / name / 'run.json', {})
  for place, what in (
    ('/', 'holds this project'),
    (str(ROOT), 'is this project'),
    (f'{ROOT}/engine/..', 'is this project'),
    ('~', 'is the home folder'),
    (str(home.parent), 'holds the home folder'),
    (str(tmp_path / 'runs'), r'holds other runs \(a, b\)'),
  ):
    with pytest.raises(UserError, match=f'^--workdir={place} {what}, and .* such as runs/NAME'):
      run.check_place(place)
  for place in ('~/run', str(ROOT / 'runs' / 'new'), str(tmp_path / 'runs' / 'c')):
    run.check_place(place)
  files.write_json(tmp_path / 'runs' / 'config.json', {})  # A run that has started there goes on.
  run.check_place(str(tmp_path / 'runs'))


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
    init_from = {'model': {'run': run}}
    train = {'latency_hiding': False, 'determinism': 'default'}
    return ConfigDict({'data': text, 'init_from': init_from, 'report': REPORT, 'train': train})

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


def put(workdir, name, text):
  files.write_text(f'{workdir}/{name}', text)


def changed_json(workdir, name, change):
  content = files.read_json(files.path(workdir) / name)
  change(content)
  put(workdir, name, json.dumps(content))


DEEP = '[' * 200_000 + ']' * 200_000


@pytest.mark.parametrize('name', ['config.json', 'run.json'])
@pytest.mark.parametrize('text', ['[]', '{}', '3', 'null', '', 'deep', '{"train": deep}'])
def test_json_of_another_form_is_damage(workdir, name, text):
  run.claim(workdir, config(), SPEC)
  put(workdir, name, text.replace('deep', DEEP))
  with pytest.raises(UserError, match=rf'{name} is damaged \(.*; .*delete it and run train\.py'):
    run.read_config(workdir)


@pytest.mark.parametrize('name', ['config.json', 'run.json', 'tokenizer.json'])
def test_what_is_no_file_is_damage(tmp_path, name):
  run.claim(str(tmp_path), config(), SPEC)
  (tmp_path / name).unlink()
  (tmp_path / name).mkdir()
  with pytest.raises(UserError, match=rf'{name} is damaged \(Is a directory\)'):
    run.read_config(str(tmp_path)), run.read_spec(str(tmp_path))


@pytest.mark.parametrize('key, value', [('n', 4), ('class_names', ['a']), ('identity', 'abd')])
def test_a_changed_value_of_a_description_is_noticed(workdir, key, value):
  run.claim(workdir, config(), SPEC)
  changed_json(workdir, 'run.json', lambda content: content['data'].update({key: value}))
  with pytest.raises(UserError, match=r'run\.json is damaged \(it differs from what was written'):
    run.read_spec(workdir)


def test_a_description_that_is_gone_is_written_anew(workdir):
  run.claim(workdir, config(), SPEC)
  put(workdir, 'checkpoints/1/some', 'thing')
  before = files.read_json(files.path(workdir) / 'run.json')
  (files.path(workdir) / 'run.json').unlink()
  with pytest.raises(UserError, match=r'run\.json is gone; run train\.py --workdir='):
    run.read_spec(workdir)
  # What train.py reads is the config.
  assert run.read_config(workdir) == config().to_dict()
  run.claim(workdir, config(), SPEC)
  assert files.read_json(files.path(workdir) / 'run.json')['data'] == before['data']


def test_a_tokenizer_that_changed_or_is_gone_is_named(workdir):
  run.claim(workdir, config(), SPEC)
  assert run.read_spec(workdir) == SPEC
  put(workdir, 'tokenizer.json', '{"kind": "bytf"}')
  with pytest.raises(UserError, match=r'tokenizer\.json is damaged \(the run has another'):
    run.read_tokenizer(workdir)
  (files.path(workdir) / 'tokenizer.json').unlink()
  with pytest.raises(UserError, match=r'tokenizer\.json is damaged \(it is gone\)'):
    run.read_spec(workdir)
  # Training makes it again, the same one.
  assert run.read_tokenizer(workdir) == ''
  run.claim(workdir, config(), SPEC)
  assert run.read_tokenizer(workdir) == SPEC.tokenizer
  with pytest.raises(UserError, match='holds a run with another tokenizer'):
    run.claim(workdir, config(), SPEC._replace(tokenizer='{"kind": "other"}'))


def test_a_config_that_was_edited_is_said(workdir, capsys):
  run.claim(workdir, config(), SPEC)
  run.claim(workdir, config(steps=20), SPEC)
  run.warn_of_edits(workdir)
  assert capsys.readouterr().err == ''
  # A process that was killed in between left the config of before.
  put(workdir, 'config.json', json.dumps(config().to_dict()))
  run.warn_of_edits(workdir)
  assert capsys.readouterr().err == ''
  changed_json(workdir, 'config.json', lambda content: content['train'].update(steps=21))
  run.warn_of_edits(workdir)
  assert 'config.json is not as train.py wrote it' in capsys.readouterr().err


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
  meta = {'step': 4, 'config': config().to_dict()}
  run.check_origin(str(tmp_path), meta, config(steps=20))
  run.check_origin(str(tmp_path), {'step': 4}, config(seed=1))  # imported without one
  with pytest.raises(UserError, match=r'checkpoint 4 in .* another config \(train.seed: 0 → 1\)'):
    run.check_origin(str(tmp_path), meta, config(seed=1))
  moved = ConfigDict({**config().to_dict(), 'data': {'text': {'tokenizer': 'b'}, **SECTIONS}})
  run.check_origin(str(tmp_path), meta, moved)
  older = config().to_dict()
  older['data'] = {'text': {'tokenizer': 'a'}}  # written before there were files of one's own
  run.check_origin(str(tmp_path), {'step': 4, 'config': older}, config())


def test_a_checkpoint_of_other_data_is_refused_and_one_of_moved_files_is_not(tmp_path):
  workdir = str(tmp_path / 'run')
  moved = config(name='folder:/new/place')
  run.claim(workdir, moved, SPEC)
  meta = {'step': 4, 'config': config(name='folder:/old/place').to_dict()}
  run.check_origin(workdir, {**meta, 'data': SPEC.identity}, moved)
  with pytest.raises(UserError, match=r'another config .data\.name: folder:/old/place → folder:'):
    run.check_origin(workdir, {**meta, 'data': 'other'}, moved)


def test_what_older_runs_lack_is_the_default_of_today():
  """While it is: `engine.run` cannot ask the declarations, which import jax."""
  declared = declared_options(Data)
  for name in ('decoded_mb', 'order_block', 'corrupt'):
    assert run._YOUNGER['data'][name] == declared[name].default
