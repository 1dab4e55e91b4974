"""Trackers: they are sent what a run reports, and none can end it.

Weights & Biases is not installed everywhere: `FakeWandb` stands for it, and takes what the
documented API of its release 0.31 takes and nothing else. Where the library is installed, one test
compares the two, and another lets the library itself write a run offline.
"""

import importlib
import inspect
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import files
from configs import mlp
from engine import loop, tracking
from engine.report import Report, Shown
from engine.trackers.tensorboard import TensorBoard
from engine.tracking import Tracked, check_trackers
from errors import UserError
from tests import runs

# The keywords of release 0.31 that are used here or are their neighbours, in its order.
API = {
  'init': (
    'entity', 'project', 'dir', 'id', 'name', 'notes', 'tags', 'config', 'config_exclude_keys',
    'config_include_keys', 'allow_val_change', 'group', 'job_type', 'mode', 'force', 'reinit',
    'resume', 'resume_from', 'fork_from', 'save_code', 'tensorboard', 'sync_tensorboard',
    'monitor_gym', 'settings',
  ),
  'Image': (
    'data_or_path', 'mode', 'caption', 'grouping', 'classes', 'boxes', 'masks', 'file_type',
  ),
  'Html': ('data', 'inject', 'data_is_not_path'),
  'Run.log': ('data', 'step', 'commit'),
  'Run.finish': ('exit_code',),
}  # fmt: skip
SETTINGS = ('console', 'silent')


def takes(name, arguments, keywords):
  """The arguments of a call by name; TypeError where the library would raise it."""
  parameters = [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
                for key in API[name]]  # fmt: skip
  return inspect.Signature(parameters).bind(*arguments, **keywords).arguments


class FakeRun:
  """A run of Weights & Biases; what is sent is in `rows`, {step: {name: value}}."""

  def __init__(self, **given):
    self.given, self.rows, self.finished = given, {}, False
    online = given['mode'] == 'online'
    self.url = f'https://wandb.ai/me/{given["id"]}' if online else None
    self.dir = f'{given["dir"]}/wandb/offline-run-20260101_000000-{given["id"]}/files'

  def log(self, *arguments, **keywords):
    call = takes('Run.log', arguments, keywords)
    assert not self.finished and type(call['data']) is dict and type(call['step']) is int
    # Steps never go back: what does is dropped by the library.
    assert call['step'] >= max(self.rows, default=0)
    self.rows.setdefault(call['step'], {}).update(call['data'])

  def finish(self, *arguments, **keywords):
    takes('Run.finish', arguments, keywords)
    self.finished = True


class FakeWandb(ModuleType):
  """Stands for the module `wandb`; `runs` are those that were begun."""

  def __init__(self, logged_in=False):
    super().__init__('wandb')
    self.runs, self._logged_in = [], logged_in

  def login(self, *, prompt):
    assert prompt is False, 'nobody is asked for a login'
    return self._logged_in

  def Settings(self, **given):
    assert {*given} <= {*SETTINGS}
    return SimpleNamespace(**given)

  def init(self, *arguments, **keywords):
    given = takes('init', arguments, keywords)
    json.dumps(given['config'])
    assert given['resume'] in ('allow', 'never', 'must', 'auto')
    assert given['mode'] in ('online', 'offline', 'disabled', 'shared')
    assert not set(given['id']) & set('/\\#?%:')
    self.runs.append(FakeRun(**given))
    return self.runs[-1]

  def Image(self, *arguments, **keywords):
    (image,) = takes('Image', arguments, keywords).values()
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3)
    return ('image', image)

  def Html(self, *arguments, **keywords):
    given = takes('Html', arguments, keywords)
    assert isinstance(given['data'], str) and given['data_is_not_path']
    return ('page', given['data'])


@pytest.fixture
def wandb(monkeypatch):
  """Puts a `FakeWandb` in the place of the library, and takes its settings away."""
  fake = FakeWandb()
  for name in ('WANDB_MODE', 'WANDB_API_KEY', 'WANDB_PROJECT', 'WANDB_NAME'):
    monkeypatch.delenv(name, raising=False)
  replace_library(monkeypatch, fake)
  return fake


def replace_library(monkeypatch, fake):
  """`import wandb` gives `fake`, or as None fails, also in our file that imported it before."""
  import engine.trackers

  monkeypatch.setitem(sys.modules, 'wandb', fake)
  monkeypatch.delitem(sys.modules, 'engine.trackers.wandb', raising=False)
  monkeypatch.delattr(engine.trackers, 'wandb', raising=False)


def report_to(folder, first=0, labels=('seed_0',), trackers=('wandb',), tokenizer=''):
  options = {'train.steps': 40, 'data.classes': (3, 5)}
  return Report(
    str(folder), first, 40, Shown(labels, ('test',), tokenizer, options, '', trackers), visible=True
  )


def test_figures_samples_and_options_are_sent(wandb, tmp_path):
  report = report_to(tmp_path / 'gan')
  report.scalars(10, 2.5, [{'model/loss': 1.25, 'test/x': float('nan')}])
  report.samples(10, 'image', [np.zeros((4, 2, 2, 3), np.float32)])
  report.scalars(20, None, [{'test/x': 3.0}])
  (run,) = wandb.runs
  assert not run.finished
  report.close()
  assert run.finished
  assert run.given['config'] == {'train.steps': 40, 'data.classes': [3, 5]}
  assert (run.given['project'], run.given['name'], run.given['mode']) == (
    'atelier',
    'gan',
    'offline',
  )
  assert run.given['dir'] == str(tmp_path / 'gan') and run.given['settings'].console == 'off'
  kind, image = run.rows[10].pop('samples')
  assert kind == 'image' and image.shape[2] == 3
  assert np.isnan(run.rows[10].pop('test/x'))
  assert run.rows == {10: {'model/loss': 1.25, 'steps_per_second': 2.5}, 20: {'test/x': 3.0}}


def test_an_undefined_figure_is_written_without_a_warning(tmp_path, caplog):
  report = report_to(tmp_path / 'run', trackers=('tensorboard',))
  with caplog.at_level('WARNING'):
    report.scalars(10, None, [{'test/r2': float('nan')}])
  report.close()
  assert not caplog.records


def test_texts_are_sent_as_they_are(wandb, tmp_path):
  from data.text import tokenization

  report = report_to(tmp_path, tokenizer=tokenization.train('byte', (), 0, ()).to_json())
  report.samples(10, 'tokens', [np.array([[*b'a<b>'], [*b'c&d ']])])
  report.close()
  (run,) = wandb.runs
  kind, page = run.rows[10]['samples']
  assert kind == 'page' and 'a&lt;b&gt;' in page and 'c&amp;d' in page and '\n---' in page


def test_lanes_are_sent_as_to_tensorboard(wandb, tmp_path):
  report = report_to(tmp_path, labels=('seed_3', 'seed_4'))
  report.scalars(10, None, [{'model/loss': 1.0}, {'model/loss': 2.0}])
  report.samples(10, 'image', [np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1))])
  report.close()
  (run,) = wandb.runs
  assert run.rows[10]['model/loss'] == 1.5 and run.rows[10]['model/loss/seed_4'] == 2.0
  assert abs(run.rows[10]['model/loss/sd'] - 0.5**0.5) < 1e-12
  assert {'samples_seed_3', 'samples_seed_4'} <= {*run.rows[10]}


def test_a_resumed_run_goes_on_in_the_same_run(wandb, tmp_path):
  for first in (0, 10):
    report = report_to(tmp_path / 'a', first)
    report.scalars(first + 10, None, [{'model/loss': 1.0}])
    report.close()
  report = report_to(tmp_path / 'b')
  report.scalars(10, None, [{'model/loss': 1.0}])
  report.close()
  first, second, other = (run.given['id'] for run in wandb.runs)
  assert first == second != other and len(first) >= 8
  assert {run.given['resume'] for run in wandb.runs} == {'allow'}


@pytest.mark.parametrize(
  ('environment', 'logged_in', 'mode'),
  [
    ({}, False, 'offline'),
    ({}, True, 'offline'),
    ({'WANDB_API_KEY': 'k'}, False, 'online'),
    ({'WANDB_MODE': 'online'}, True, 'online'),
    ({'WANDB_MODE': 'online'}, False, 'offline'),
    ({'WANDB_MODE': 'offline', 'WANDB_API_KEY': 'k'}, True, 'offline'),
    ({'WANDB_MODE': 'disabled'}, False, 'disabled'),
  ],
)
def test_it_is_offline_unless_the_environment_says_otherwise(
  environment, logged_in, mode, wandb, tmp_path, monkeypatch, capsys
):
  replace_library(monkeypatch, fake := FakeWandb(logged_in))
  for name, value in {'WANDB_PROJECT': 'mine', **environment}.items():
    monkeypatch.setenv(name, value)
  report = report_to(tmp_path)
  report.scalars(10, None, [{'model/loss': 1.0}])
  report.close()
  (run,) = fake.runs
  assert (run.given['mode'], run.given['project']) == (mode, 'mine')
  said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('wandb ')]
  where = {'offline': 'wandb sync', 'online': 'https://wandb.ai/me/'}
  assert where[mode] in said[0] if mode in where else not said


def test_a_run_in_a_bucket_keeps_its_id_there(wandb, bucket):
  report = report_to('gs://some/run')
  report.scalars(10, None, [{'model/loss': 1.0}])
  report.close()
  (run,) = wandb.runs
  assert run.given['dir'] is None
  assert files.path('gs://some/run/wandb_id.txt').read_text().strip() == run.given['id']


class Failing(TensorBoard):
  """Fails at a call; it counts those it had."""

  at, calls, closed = 0, 0, 0

  def figures(self, step, figures):
    del step, figures
    Failing.calls += 1
    if Failing.calls > Failing.at:
      raise ConnectionError('the server\nis gone')

  def close(self):
    Failing.closed += 1
    raise OSError('no end')


@pytest.mark.parametrize('at', [0, 2])
def test_one_that_fails_is_left_out_with_one_line(at, wandb, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr('engine.trackers.tensorboard.TensorBoard', Failing)
  monkeypatch.setattr(Failing, '__module__', 'engine.trackers.tensorboard')
  for name, value in dict(at=at, calls=0, closed=0).items():
    monkeypatch.setattr(Failing, name, value)
  report = report_to(tmp_path, trackers=('tensorboard', 'wandb'))
  for step in (10, 20, 30, 40):
    report.scalars(step, None, [{'model/loss': 1.0}])
  report.close()
  said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('warning')]
  assert said == [
    f'warning  the tracker tensorboard failed at step {10 * at + 10} (ConnectionError: the server '
    'is gone); the run goes on without it'
  ]
  assert (Failing.calls, Failing.closed) == (at + 1, 1)
  assert [*wandb.runs[0].rows] == [10, 20, 30, 40] and wandb.runs[0].finished


@pytest.mark.parametrize('place', ['init', 'finish'])
def test_a_run_goes_on_without_a_tracker_that_fails(place, wandb, tmp_path, monkeypatch, capsys):
  def fail(*arguments, **keywords):
    raise RuntimeError('broken')

  monkeypatch.setattr(*((FakeRun, place) if place == 'finish' else (wandb, place)), fail)
  report = report_to(tmp_path)
  report.scalars(10, None, [{'model/loss': 1.0}])
  report.samples(10, 'image', [np.zeros((1, 2, 2, 1))])
  report.close()
  when = 'at its end' if place == 'finish' else 'at step 10'
  said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('warning')]
  assert len(said) == 1 and f'wandb failed {when}' in said[0] and 'RuntimeError: broken' in said[0]
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 1


def test_a_library_that_is_missing_is_said_before_anything_is_opened(tmp_path, monkeypatch):
  replace_library(monkeypatch, None)
  config = mlp.get_config()
  config.data.name = 'a_data_set_that_is_not_there'
  config.report.trackers = ('tensorboard', 'wandb')
  with pytest.raises(UserError, match=r'trackers=tensorboard,wandb: the package wandb is not inst'):
    loop.train(config, str(tmp_path / 'run'))
  with pytest.raises(UserError, match=r'; pip install --upgrade wandb, or leave wandb out$'):
    check_trackers(('wandb',))
  assert not (tmp_path / 'run').exists()


def test_a_library_that_fails_while_it_is_imported_is_said(tmp_path, monkeypatch):
  replace_library(monkeypatch, None)
  monkeypatch.delitem(sys.modules, 'wandb')
  (tmp_path / 'wandb.py').write_text('raise TypeError("Descriptors cannot\\nbe created")')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError) as refused:
    check_trackers(('wandb',))
  assert str(refused.value) == (
    'config.report.trackers=wandb: the package wandb fails: Descriptors cannot be created; '
    'pip install --upgrade wandb, or leave wandb out'
  )


def test_one_named_twice_is_refused(wandb):
  with pytest.raises(UserError, match=r'trackers=wandb,tensorboard,wandb names wandb twice'):
    check_trackers(('wandb', 'tensorboard', 'wandb'))
  check_trackers(('wandb', 'tensorboard'))
  check_trackers(())


def test_every_file_is_a_tracker(wandb):
  for name in tracking.TRACKERS:
    module = importlib.import_module(f'engine.trackers.{name}')
    found = [value for value in vars(module).values() if inspect.isclass(value)]
    assert any(
      issubclass(each, tracking.Tracker) and not inspect.isabstract(each) for each in found
    )
  assert Tracked._fields == ('workdir', 'first_step', 'options', 'best')


def test_a_training_is_followed_from_its_config(wandb, tmp_path):
  for steps in (2, 4):
    config = runs.small(mlp.get_config())
    config.data.update(split='train[:64]', test_split='test[:32]', batch_size=16)
    config.train.update(steps=steps, log_every=1)
    config.report.trackers = ('wandb',)
    loop.train(config, str(tmp_path / 'run'))
  assert [[*run.rows] for run in wandb.runs] == [[1, 2], [3, 4]]
  assert len({run.given['id'] for run in wandb.runs}) == 1
  last = runs.metrics(tmp_path / 'run')[-1]
  sent = wandb.runs[-1].rows[4]
  assert sent['model/loss'] == last['model/loss'] and sent['test/accuracy'] == last['test/accuracy']
  assert wandb.runs[0].given['config']['report.trackers'] == ['wandb']
  assert not list((tmp_path / 'run').glob('events.out.*'))


def test_the_library_has_the_api_that_the_fake_stands_for():
  library = pytest.importorskip('wandb', reason='an extra, in requirements-extras.txt')
  from wandb.sdk.wandb_run import Run

  found = dict(init=library.init, Image=library.Image.__init__, Html=library.Html.__init__)
  found.update({'Run.log': Run.log, 'Run.finish': Run.finish})
  for name, target in found.items():
    known = [key for key in inspect.signature(target).parameters if key != 'self']
    assert {*API[name]} <= {*known}, name
  assert 'prompt' in inspect.signature(library.login).parameters
  library.Settings(console='off', silent=True)


def test_the_library_writes_a_run_offline(tmp_path, script, monkeypatch):
  pytest.importorskip('wandb', reason='an extra, in requirements-extras.txt')
  for name in ('WANDB_MODE', 'WANDB_API_KEY'):
    monkeypatch.delenv(name, raising=False)
  for steps in (2, 4):
    done = script(
      'train.py',
      *runs.SMALL_MLP,
      f'--workdir={tmp_path}',
      '--config.report.trackers=wandb',
      f'--config.train.steps={steps}',
    )
    assert done.returncode == 0 and 'warning' not in done.stdout, done.stderr
    assert 'wandb    offline in ' in done.stdout
  name = (tmp_path / 'wandb_id.txt').read_text().strip()
  written = list((tmp_path / 'wandb').glob(f'offline-run-*-{name}/run-{name}.wandb'))
  assert len(written) == 2 and all(path.stat().st_size > 500 for path in written)
