"""evaluate.py and the pictures of sample.py on finished runs."""

import json

import numpy as np
import pytest
from PIL import Image

from commands import evaluate_run, render_samples
from engine.restore import restore_run
from errors import UserError
from tests import runs

SHORT = ('--config.train.steps=4', *runs.every(2, 4, 4))


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('vae') / 'run'
  runs.train(*runs.SMALL_VAE, *SHORT, '--config.objective.likelihood_samples=20',
             f'--workdir={workdir}')  # fmt: skip
  return workdir


def pictures_of(workdir, out, kind='prior', num=None, split='', seed=0, **conditions):
  restored = restore_run(str(workdir), 'latest')
  render_samples.draw(restored, str(workdir), kind, num, conditions, split, seed, str(out))


def figures_of(workdir, out, checkpoint='latest', split='', seed=None):
  evaluate_run.judge(str(workdir), checkpoint, split, seed, str(out), ['evaluate.py'])
  return json.loads(out.read_text())


def test_the_figures_of_a_vae(vae, script):
  done = script('evaluate.py', f'--workdir={vae}')
  assert done.returncode == 0, done.stderr
  written = json.loads((vae / 'metrics.json').read_text())
  figures = written['metrics']
  assert {'elbo', 'reconstruction', 'kl', 'bits_per_dim', 'mse', 'nll'} <= figures.keys()
  for name in figures:
    assert name in done.stdout
  # What training logged of the same step, on the same noise.
  logged = runs.metrics(vae)[-1]
  for name in ('elbo', 'mse', 'kl'):
    np.testing.assert_allclose(figures[name], logged[f'eval/{name}'], rtol=1e-5)
  # In expectation the likelihood is above the bound; over 1,000 digits it is.
  assert -figures['nll'] > figures['elbo']
  made_by = written['made_by']
  assert made_by['step'] == 4 and made_by['data']['n'] == 1000
  assert made_by['config']['objective']['likelihood_samples'] == 20
  assert made_by['command'].startswith('python evaluate.py --workdir=')
  assert {'versions', 'devices', 'date', 'seconds', 'seed'} <= made_by.keys()
  assert written['standard_errors']['nll'] > 0


def test_another_split_another_seed_and_another_file(vae, tmp_path):
  written = figures_of(vae, tmp_path / 'deep' / 'a.json', split='test[:30]', seed=3)
  made_by = written['made_by']
  assert (made_by['data']['n'], made_by['data']['split'], made_by['seed']) == (30, 'test[:30]', 3)
  again = figures_of(vae, tmp_path / 'b.json', split='test[:30]', seed=3)
  assert again['metrics'] == written['metrics']
  other = figures_of(vae, tmp_path / 'c.json', split='test[:30]', seed=4)
  assert other['metrics']['elbo'] != written['metrics']['elbo']


def test_the_figures_of_a_gan(tmp_path):
  runs.train(*runs.SMALL_GAN, *SHORT, f'--workdir={tmp_path}/gan')
  written = figures_of(tmp_path / 'gan', tmp_path / 'gan.json', split='test[:200]')
  assert {'fd_pixels14', 'discriminator_loss'} <= written['metrics'].keys()
  assert 'fd_pixels14' not in written['standard_errors']


def test_every_kind_of_picture(vae, tmp_path):
  sizes = {}
  for kind, num in [('prior', 4), ('reconstruct', 8), ('interpolate', 2), ('traverse', 2),
                    ('manifold', 3)]:  # fmt: skip
    pictures_of(vae, tmp_path / f'{kind}.npz', kind, num)
    sizes[kind] = np.load(tmp_path / f'{kind}.npz')['image'].shape[:-3]
  assert sizes == {'prior': (4,), 'reconstruct': (2, 8), 'interpolate': (2, 13),
                   'traverse': (2, 11), 'manifold': (3, 3)}  # fmt: skip


def test_a_picture_goes_where_its_kind_says(vae, script):
  done = script('sample.py', f'--workdir={vae}', '--kind=interpolate')
  assert done.returncode == 0 and 'interpolate.png' in done.stdout, done.stderr
  picture = Image.open(vae / 'interpolate.png')
  assert picture.width > picture.height


@pytest.mark.parametrize(
  'options, part',
  [
    ({'kind': 'traverze'}, 'did you mean "traverse"'),
    ({'label': 3}, 'was trained without a label'),
    ({'kind': 'reconstruct', 'label': 3}, 'goes with --kind=prior'),
    ({'kind': 'reconstruct', 'split': 'tset'}, 'tset'),
    ({'num': 0}, '--num=0 must be at least 1'),
  ],
)
def test_pictures_that_cannot_be(vae, tmp_path, options, part):
  with pytest.raises(UserError, match=part):
    pictures_of(vae, tmp_path / 'x.png', **options)


@pytest.mark.parametrize(
  'options, part',
  [
    ({'split': 'tset'}, 'tset'),
    ({'checkpoint': '3'}, '3'),
    ({'seed': -1}, '--seed=-1 must be from 0'),
  ],
)
def test_figures_that_cannot_be(vae, tmp_path, options, part):
  with pytest.raises(UserError, match=part):
    figures_of(vae, tmp_path / 'x.json', **options)
  with pytest.raises(UserError, match=r'must end in \.json'):
    figures_of(vae, tmp_path / 'x.txt')


def test_images_of_another_size_than_the_run_s(vae, tmp_path, monkeypatch):
  """A data set of the same name that was prepared anew with larger images."""
  from data.source import Source

  plain = Source._features

  def larger(self, name, columns):
    features, classes = plain(self, name, columns)
    return {**features, 'image': ((32, 32, 1), 'uint8')}, classes

  monkeypatch.setattr(Source, '_features', larger)
  with pytest.raises(UserError, match='was trained on'):
    figures_of(vae, tmp_path / 'x.json')
