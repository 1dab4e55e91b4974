"""evaluate.py and the pictures of sample.py on finished runs, as a person calls them."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import runs

SHORT = ('--config.train.steps=4', *runs.every(2, 4, 4))


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('vae') / 'run'
  runs.train(*runs.SMALL_VAE, *SHORT, '--config.objective.likelihood_samples=20',
             f'--workdir={workdir}')  # fmt: skip
  return workdir


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


def test_another_split_and_another_file(vae, script, tmp_path):
  out = tmp_path / 'deep' / 'figures.json'
  done = script('evaluate.py', f'--workdir={vae}', '--split=test[:30]', '--seed=3', f'--out={out}')
  assert done.returncode == 0, done.stderr
  made_by = json.loads(out.read_text())['made_by']
  assert (made_by['data']['n'], made_by['data']['split'], made_by['seed']) == (30, 'test[:30]', 3)


def test_the_figures_of_a_gan(tmp_path, script):
  runs.train(*runs.SMALL_GAN, *SHORT, f'--workdir={tmp_path}/gan')
  done = script('evaluate.py', f'--workdir={tmp_path}/gan', '--split=test[:200]')
  assert done.returncode == 0, done.stderr
  written = json.loads((tmp_path / 'gan' / 'metrics.json').read_text())
  assert {'fd_pixels14', 'discriminator_loss'} <= written['metrics'].keys()
  assert 'fd_pixels14' not in written['standard_errors']


def test_every_kind_of_picture(vae, script, tmp_path):
  sizes = {}
  for kind, num in [('prior', 4), ('reconstruct', 8), ('interpolate', 2), ('traverse', 2),
                    ('manifold', 3)]:  # fmt: skip
    done = script('sample.py', f'--workdir={vae}', f'--kind={kind}', f'--num={num}',
                  f'--out={tmp_path}/{kind}.npz')  # fmt: skip
    assert done.returncode == 0, done.stderr
    sizes[kind] = np.load(tmp_path / f'{kind}.npz')['image'].shape[:-3]
  assert sizes == {'prior': (4,), 'reconstruct': (2, 8), 'interpolate': (2, 13),
                   'traverse': (2, 11), 'manifold': (3, 3)}  # fmt: skip


def test_a_picture_goes_where_its_kind_says(vae, script):
  done = script('sample.py', f'--workdir={vae}', '--kind=interpolate')
  assert done.returncode == 0 and 'interpolate.png' in done.stdout, done.stderr
  assert Image.open(vae / 'interpolate.png').width > Image.open(vae / 'interpolate.png').height


MISTAKES = {
  'no such kind': (['sample.py', '--kind=traverze'], 'did you mean "traverse"'),
  'a label without labels': (['sample.py', '--label=3'], 'was trained without a label'),
  'a label for another kind': (
    ['sample.py', '--kind=reconstruct', '--label=3'],
    'goes with --kind',
  ),
  'no such split': (['evaluate.py', '--split=tset'], 'tset'),
  'no such step': (['evaluate.py', '--checkpoint=3'], '3'),
  'another ending': (['evaluate.py', '--out=figures.txt'], '.json'),
  'a negative seed': (['evaluate.py', '--seed=-1'], '--seed=-1 must be from 0'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_are_one_sentence(mistake, vae, script):
  (name, *flags), part = MISTAKES[mistake]
  done = script(name, f'--workdir={vae}', *flags)
  assert done.returncode == 2, (done.stdout, done.stderr)
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr
  assert part in done.stderr
