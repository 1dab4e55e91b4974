"""Lists of runs, their differences and curves; damaged runs are named and stop nothing."""

import fcntl
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import files
from commands import list_runs, run_records
from data.spec import Spec
from engine import run
from errors import UserError
from metrics import charts

SPEC = Spec('some', 'train', 3, {'inputs': ((4,), 'float32')}, 0, 'abc', ())


def make(folder, lines, steps=40, best='test/loss', mode='min', saved=(), patience=0, **train):
  """A run's folder with these lines of metrics.jsonl and the names of these checkpoints."""
  config = ConfigDict(
    dict(
      objective=dict(name='classify'),
      data=dict(name='mnist5k'),
      train=dict(steps=steps, epochs=0.0, patience=patience, **train),
      checkpoint=dict(best=best, best_mode=mode),
      evaluators=dict(test={}),
    )
  )
  run.claim(str(folder), config, SPEC, steps)
  files.write_text(f'{folder}/metrics.jsonl', ''.join(f'{json.dumps(line)}\n' for line in lines))
  for step, waited in saved:
    meta = {'patience': [[0.5, 10, each] for each in waited]}
    files.write_json(f'{folder}/checkpoints/{step}/meta/metadata', meta)
  return str(folder)


def line(step, **figures):
  named = {name.replace('_', '/', 1): value for name, value in figures.items()}
  return {'step': step, 'wall_time': 1.7e9 + step, **named}


def cells(printed):
  return [[cell.strip() for cell in row.split('  ') if cell.strip()] for row in printed]


@pytest.fixture
def folder(tmp_path):
  make(tmp_path / 'a', [line(20, test_loss=0.5), line(40, test_loss=0.75)], saved=[(40, [0])])
  make(tmp_path / 'sub/b', [line(20, test_loss=2)], saved=[(10, [0]), (15, [0])])
  waited = [line(10, test_loss=None), line(20, test_loss=1.25, model_loss=float('1e3'))]
  make(tmp_path / 'c', waited, saved=[(20, [3, 2])], patience=2)
  make(tmp_path / 'd', [], best='')
  (tmp_path / 'downloaded').mkdir()
  (tmp_path / 'downloaded/config.json').write_text('{}')  # of Hugging Face's
  return tmp_path


def test_every_run_is_a_line(folder, capsys):
  list_runs.list_runs([str(folder)])
  header, *rows = cells(capsys.readouterr().out.splitlines())
  assert header == ['run', 'config', 'step', 'best', 'last written', 'status']
  assert [row[0].removeprefix(f'{folder}/') for row in rows] == ['a', 'c', 'd', 'sub/b']
  assert [row[1] for row in rows] == ['classify mnist5k'] * 4
  assert [row[2] for row in rows] == ['40 of 40', '20 of 40', '0 of 40', '20 of 40']
  assert [row[3] for row in rows] == [
    'test/loss 0.5 at 20', 'test/loss 1.25 at 20', '–', 'test/loss 2 at 20',
  ]  # fmt: skip
  assert [row[5] for row in rows] == [
    'complete', 'stopped early', 'no checkpoint', 'stopped, saved at 15',
  ]  # fmt: skip


def test_a_run_that_trains_is_told_by_its_lock(folder):
  lock = folder / 'a/.lock'
  with open(lock, 'w') as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    assert run_records.read_record(f'{folder}/a').status == 'training'
  assert run_records.read_record(f'{folder}/a').status == 'complete'


def test_runs_in_a_bucket_are_listed(bucket, capsys):
  make('gs://some/runs/x', [line(20, test_loss=0.5)])
  list_runs.list_runs(['gs://some/runs'])
  assert 'gs://some/runs/x' in capsys.readouterr().out


def no_object(place):
  (place / 'config.json').write_text('[]')


def no_section(place):
  config = json.loads((place / 'config.json').read_text())
  (place / 'config.json').write_text(json.dumps({k: v for k, v in config.items() if k != 'train'}))


def other_types(place):
  config = json.loads((place / 'config.json').read_text())
  (place / 'config.json').write_text(json.dumps({**config, 'checkpoint': 7, 'train': [1]}))


def no_description(place):
  (place / 'run.json').unlink()


def older_format(place):
  (place / 'run.json').write_text('{}')


def a_folder(place):
  (place / 'config.json').unlink()
  (place / 'config.json').mkdir()


def noise(place):
  (place / 'metrics.jsonl').write_bytes(bytes(range(256)) * 9)


DAMAGES = {
  no_object: 'config.json is damaged (it holds no mapping)',
  no_section: "config.json has no 'train'",
  other_types: 'is damaged (TypeError',
  no_description: 'run.json is gone; run train.py',
  older_format: 'run.json is damaged (it holds no',
  a_folder: 'Is a directory',
  noise: 'it has no whole line',
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_run_is_named_and_stops_nothing(damage, folder, capsys):
  damage(folder / 'a')
  list_runs.list_runs([str(folder)])
  printed = capsys.readouterr().out
  (said,) = [row for row in printed.splitlines() if row.startswith('damaged')]
  assert f'{folder}/a' in said and DAMAGES[damage] in said
  assert f'{folder}/sub/b' in printed and f'{folder}/c' in printed


def test_a_torn_line_and_odd_values_are_no_damage(folder):
  with open(folder / 'a/metrics.jsonl', 'a') as file:
    file.write('7\n{"test/loss": 0.1}\n{"step": 30, "test/loss": "low"}\n{"step": 50, "te')
  record = run_records.read_record(f'{folder}/a')
  assert [each['step'] for each in record.lines] == [20, 30, 40]
  assert record.best_line['step'] == 20


def test_figures_of_samples_are_found_by_their_beginning(tmp_path):
  name = 'samples/fd_pixels14_1k-test'
  lines = [{**line(10), name: 3.0, f'{name}/sd': 0.5}, {**line(20), name: 4.0}]
  record = run_records.read_record(make(tmp_path, lines, best='samples/fd', mode='max'))
  assert (record.ranking_figure, record.best_line['step']) == (name, 20)


def test_two_runs_are_compared(folder, tmp_path, capsys):
  lanes = {**line(30, test_loss=0.25, model_loss=1.0), 'test/loss/sd': 0.125, 'test/loss/seed_0': 9}
  other = make(tmp_path / 'other', [lanes], steps=80, seed=3)
  list_runs.compare_runs(f'{folder}/a', other)
  options, figures = capsys.readouterr().out.split('\n\n')
  assert cells(options.splitlines())[1:] == [
    ['config.train.seed', '–', '3'], ['config.train.steps', '40', '80'],
  ]  # fmt: skip
  assert cells(figures.splitlines()) == [
    ['figure', 'best step 20', 'best step 30'],
    ['test/loss', '0.5', '0.25 ± 0.12'],
    ['model/loss', '–', '1'],
  ]
  list_runs.compare_runs(other, other)
  assert '(none differs)' in capsys.readouterr().out
  with pytest.raises(UserError, match='is no run'):
    list_runs.compare_runs(other, f'{folder}/sub')


def test_curves_of_several_runs_are_one_picture(folder, tmp_path, capsys, monkeypatch):
  drawn = {}
  curves = charts.curves
  monkeypatch.setattr(
    charts, 'curves', lambda lines, name: drawn.update(lines) or curves(lines, name)
  )
  out = tmp_path / 'new/loss.png'
  list_runs.plot_runs([str(folder)], 'test/loss', str(out))
  said = capsys.readouterr()
  assert 'of 3 runs' in said.out and f'left out {folder}/d' in said.err
  assert [*drawn] == [f'{folder}/{name}' for name in ('a', 'c', 'sub/b')]
  assert drawn[f'{folder}/a'][:2] == ([20, 40], [0.5, 0.75])
  with Image.open(out) as picture:
    pixels = np.asarray(picture.convert('RGB'))
  # The first two colours of the palette, of the first two runs.
  for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
    assert (np.abs(pixels.astype(int) - colour).max(axis=2) < 8).sum() > 20
  with pytest.raises(UserError, match=r'did you mean "test/loss"'):
    list_runs.plot_runs([str(folder)], 'test/los', str(out))
  with pytest.raises(UserError, match=r'must end in \.png'):
    list_runs.plot_runs([str(folder)], 'test/loss', str(tmp_path / 'x.pdf'))


def test_the_command(folder, script):
  done = script('-m', 'tools.runs', f'{folder}/a', f'{folder}/sub')
  assert done.returncode == 0 and done.stdout.count('test/loss') == 2, done.stderr
  for words, said in (
    (['--compare', f'{folder}/a'], 'not 1'),
    ([f'{folder}/a', '--plot=test/loss'], 'together'),
    ([f'{folder}/a', '--plot='], '--plot= is empty'),
    ([f'{folder}/nowhere'], 'there is no folder'),
  ):
    done = script('-m', 'tools.runs', *words)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and said in done.stderr, done.stderr


def test_nothing_of_jax_is_needed(folder, script):
  program = f'''
import sys
from commands import list_runs
list_runs.list_runs(["{folder}"])
assert "jax" not in sys.modules
'''
  done = script('-c', program)
  assert done.returncode == 0, done.stderr


def test_the_fingerprint_of_a_checkpoint_is_that_of_its_parameters(tmp_path):
  def saved(folder, variables, training):
    meta = {'fingerprint': {'variables': variables, 'training': training}}
    files.write_json(tmp_path / folder / 'checkpoints/3/meta/metadata', meta)
    return run_records.read_fingerprint(str(tmp_path / folder), 3)

  one = saved('a', {'w': ['(2,)', 'float32', 7]}, {'key': 1})
  assert one and one == saved('b', {'w': ['(2,)', 'float32', 7]}, {'key': 2})
  assert one != saved('c', {'w': ['(2,)', 'float32', 8]}, {'key': 1})
  assert run_records.read_fingerprint(str(tmp_path / 'a'), 4) == ''
  (tmp_path / 'a/checkpoints/3/meta/metadata').write_text('{"fingerprint": []}')
  assert run_records.read_fingerprint(str(tmp_path / 'a'), 3) == ''
