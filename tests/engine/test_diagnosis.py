"""What a failing run says and writes: each failure is provoked on a tiny model."""

import errno
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import files
from commands import cli
from engine import doctor, loop
from errors import UserError
from objectives.gan import GAN
from tests.conftest import ROOT


def config_of(name, **changes):
  """A shipped config on few units and examples, with these changes."""
  config = cli.load(f'{ROOT}/configs/{name}.py')
  for module in config.modules.values():
    if 'widths' in module:
      module.widths = (32, 16)[: len(module.widths)]
  config.data.batch_size = 16
  config.data.split, config.data.test_split = 'train[:256]', 'test[:32]'
  config.evaluators = {}
  config.report.trackers = ()
  config.checkpoint.update(every=10_000, best='')
  config.train.update(steps=20, log_every=10, sample_every=10_000, samples=32)
  for path, value in changes.items():
    node = config
    *parents, name = path.split('__')
    for part in parents:
      node = node[part]
    node[name] = value
  return config


# Long enough for a verdict, of which nothing comes before step 500.
LONG = dict(train__steps=900, train__log_every=50, train__sample_every=300)
NO_PENALTY = dict(objective__penalties__r1=0.0, objective__penalty_every=1)
STILL = dict(optimizer__generator__learning_rate=0.0)


def stopped(config, workdir):
  """The message of a run that must stop, and what its diagnosis.json holds."""
  with pytest.raises(UserError, match='training stopped at step') as caught:
    loop.train(config, str(workdir))
  (folder,) = (workdir / 'diagnosis').iterdir()
  return str(caught.value), json.loads((folder / 'diagnosis.json').read_text())


def warnings(printed):
  return [line for line in printed.splitlines() if line.startswith('warning')]


def table(folder, column):
  """A table of 64 rows with the columns a and b, b having these values, and two classes."""
  rows = ['a,b,kind', *(f'{i % 7 / 7:.3f},{value},{"xy"[i % 2]}' for i, value in enumerate(column))]
  (folder / 'table.csv').write_text('\n'.join(rows) + '\n')
  return dict(
    data__name=f'csv:{folder}/table.csv', data__table__target='kind', data__split='train',
    data__test_split='test', train__epochs=0.0, modules__model__widths=(8,),
  )  # fmt: skip


def test_a_learning_rate_that_is_far_too_high(tmp_path):
  config = config_of('vae', optimizer__vae__learning_rate=1e3, train__steps=50)
  message, told = stopped(config, tmp_path)
  assert 'updates of "vae" that are too large (learning rate 1e+03)' in message
  assert 'try --config.optimizer.vae.learning_rate=0.001, then --config.optimizer.vae.clip=1' in (
    message
  )
  (found,) = told['findings']
  step = told['step']
  assert found['batch']['used'] == 16 * (step - 1) and len(found['batch']['examples']) == 16
  assert found['modules'].keys() == {'encoder', 'decoder'}
  folder = tmp_path / 'diagnosis' / str(step)
  steps = [json.loads(line) for line in (folder / 'steps.jsonl').read_text().splitlines()]
  assert steps[-1]['step'] == step and steps[-1]['vae/loss'] in ('nan', 'inf', '-inf')
  assert (folder / 'diagnosis.txt').read_text().startswith(f'step {step}: the gradient norm of')
  with Image.open(folder / 'samples.png') as picture:
    assert min(picture.size) > 100


@pytest.mark.parametrize('seeds', [1, 2])
def test_a_column_far_off_the_scale_is_the_cause(seeds, tmp_path):
  rows = [f'{1e30 * i:g}' for i in range(64)]
  config = config_of('tabular', **table(tmp_path, rows), seeds=seeds)
  message, told = stopped(config, tmp_path / 'run')
  assert 'the column "b" is ' in message and 'far off the scale' in message
  assert 'leave the column out with --config.data.table.ignore=b' in message
  assert 'learning_rate' not in message
  columns = told['findings'][0]['batch']['features']['inputs']['columns']
  assert columns['the column "b"']['largest'] > 1e30 > columns['the column "a"']['largest']
  assert told['findings'][0]['lane'] == ('' if seeds == 1 else 'seed_0')


def test_a_column_that_the_model_could_standardise(tmp_path):
  changes = table(tmp_path, [f'{1e8 * i:g}' for i in range(64)])
  changes |= dict(modules__model__normalise=False, train__steps=400)
  config = config_of('tabular', **changes)
  config.optimizer.model = dict(config.optimizer.model.to_dict(), name='sgd', learning_rate=1e30)
  for key in {*config.optimizer.model} & {'b1', 'b2', 'eps'}:
    del config.optimizer.model[key]
  message, _ = stopped(config, tmp_path / 'run')
  assert 'the column "b" is ' in message and 'try --config.modules.model.normalise=True' in message


def test_a_nan_in_the_data_is_the_cause(tmp_path, monkeypatch):
  open_feed = loop.open_feed

  def spoiled(session, start):
    feed = open_feed(session, start)
    feed._arrays['inputs'] = feed._arrays['inputs'].at[5, 1].set(jnp.nan)
    return feed

  monkeypatch.setattr(loop, 'open_feed', spoiled)
  config = config_of('tabular', **table(tmp_path, range(64)))
  message, told = stopped(config, tmp_path / 'run')
  assert 'the column "b" is nan in example 5 of its batch of csv:' in message
  assert 'likely cause: the data, which are not finite there; fill these values in' in message
  assert 5 in told['findings'][0]['batch']['examples']


def test_the_batch_of_a_streamed_feed_is_that_of_the_step(tmp_path):
  found = []
  for resident_mb in (0, 64):
    config = config_of('vae', optimizer__vae__learning_rate=1e3, train__steps=50)
    config.data.resident_mb = resident_mb
    _, told = stopped(config, tmp_path / str(resident_mb))
    found.append((told['step'], told['findings'][0]['batch']))
  assert found[0] == found[1]


def test_a_full_disk_hides_nothing(tmp_path, monkeypatch):
  write = files.write

  def full(place, save):
    if '/diagnosis/' in str(place):
      raise OSError(errno.ENOSPC, 'No space left on device')
    write(place, save)

  monkeypatch.setattr(files, 'write', full)
  config = config_of('vae', optimizer__vae__learning_rate=1e3, train__steps=50)
  with pytest.raises(UserError, match='training stopped at step') as caught:
    loop.train(config, str(tmp_path))
  message = str(caught.value)
  assert 'updates of "vae" that are too large' in message
  assert 'cannot be written: [Errno 28] No space left' in message


@pytest.fixture
def constant(monkeypatch):
  """Every generator makes one image."""
  monkeypatch.setattr(GAN, 'latents', lambda self, keys: jnp.zeros((len(keys), self.latent_size)))


def test_a_discriminator_that_has_won_and_samples_that_are_all_the_same(tmp_path, capsys, constant):
  config = config_of('gan', **LONG, **NO_PENALTY, **STILL)
  loop.train(config, str(tmp_path))
  said = warnings(capsys.readouterr().out)
  assert len(said) == 4 and [line for line in said if ' to the end, ' in line] == said[2:]
  (won,) = [line for line in said[:2] if '"discriminator" has won over "generator"' in line]
  assert 'does not move, for its learning rate is 0' in won
  assert 'try --config.optimizer.generator.learning_rate=0.002' in won
  (collapsed,) = [line for line in said[:2] if 'samples have collapsed: the pixels of 32' in line]
  assert 'deviate from their mean by 0.00 of' in collapsed and '100% of the samples' in collapsed
  assert 'try --config.objective.penalties.r1=1.0, then' in collapsed
  for line in said[:2]:
    step = line.split('step ')[1].split(':')[0]
    folder = tmp_path / 'diagnosis' / step
    assert str(folder) in line and (folder / 'samples.png').exists()
    logged = [json.loads(row) for row in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert logged[-1]['step'] == int(step) and 'discriminator/real_logit' in logged[-1]

  # It is found again after a resume: the log tells of the steps before. One picture tells nothing.
  config.train.steps = 950
  loop.train(config, str(tmp_path))
  again = warnings(capsys.readouterr().out)
  assert len(again) == 2 and all('has won over' in line for line in again)
  assert again[0].startswith('warning  step 950: since step ')
  assert again[0].split('since step ')[1].split()[0] == won.split('since step ')[1].split()[0]


@pytest.mark.slow
def test_the_lane_is_named(tmp_path, capsys, constant):
  config = config_of('gan', **LONG, **NO_PENALTY, **STILL, seeds=3)
  loop.train(config, str(tmp_path))
  said = warnings(capsys.readouterr().out)
  for lane in ('seed_0', 'seed_1', 'seed_2'):
    mine = [line for line in said if f'lane {lane}: ' in line]
    assert any('has won over' in line for line in mine)
    assert any('samples have collapsed' in line for line in mine)
  assert sorted(path.name for path in tmp_path.glob('diagnosis/*/samples_*.png'))[0] == (
    'samples_seed_0.png'
  )


def test_a_healthy_run_warns_of_nothing(tmp_path, capsys):
  config = config_of('gan', **LONG)
  loop.train(config, str(tmp_path))
  assert not warnings(capsys.readouterr().out)
  assert not (tmp_path / 'diagnosis').exists()


def test_a_diagnosis_that_fails_ends_no_run(tmp_path, capsys, monkeypatch):
  def failing(*arguments):
    raise RuntimeError('out of order')

  monkeypatch.setattr(doctor, 'winner', failing)
  loop.train(config_of('gan'), str(tmp_path))
  printed = capsys.readouterr().out
  assert 'warning  no diagnosis at step 10 (RuntimeError: out of order)' in printed
  assert 'finished step 20 of 20' in printed


def test_norms_of_what_squares_overflow():
  from engine.diagnosis import _parameter_norms

  held = {'a': {'w': jnp.full((4,), 1e30)}, 'b': {'w': jnp.array([3.0, 4.0])}, 'c': {}}
  found = _parameter_norms(held)
  np.testing.assert_allclose(found['a'][0], 2e30, rtol=1e-6)
  np.testing.assert_allclose(found['b'][0], 5.0, rtol=1e-6)
  assert float(found['c'][0]) == 0
  norm, bad = _parameter_norms({'a': {'w': jnp.array([jnp.nan, 1.0])}})['a']
  assert np.isnan(norm) and int(bad) == 1
