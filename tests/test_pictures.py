"""The pictures of sample.py on a finished run."""

import numpy as np
import pytest
from PIL import Image

from commands.sample_run import Request, sample_run
from configs import vae as config_of_vae
from engine import pictures
from errors import UserError
from tests import runs


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
  config = runs.small(config_of_vae.get_config())
  config.modules.encoder.latent_size = 2
  workdir = tmp_path_factory.mktemp('vae') / 'run'
  runs.saved_run(workdir, config)
  return workdir


def pictures_of(workdir, out, kind='prior', num=None, split='', **options):
  sample_run(Request(str(workdir), kind, num, str(out), split, options=options))


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


def test_the_words_of_a_picture_are_drawn(vae, tmp_path, monkeypatch):
  told = {}
  captioned = pictures.captioned

  def watched(images, columns, rows):
    told.update(columns=columns, rows=rows)
    return captioned(images, columns, rows)

  monkeypatch.setattr(pictures, 'captioned', watched)
  pictures_of(vae, tmp_path / 'x.png', 'traverse', 2)
  assert told['columns'][0] == '-3.0'
  assert sorted(words.split('\n')[0] for words in told['rows']) == ['z[0]', 'z[1]']
  pictures_of(vae, tmp_path / 'x.png', 'interpolate', 3)
  assert [words[1:5] for words in told['rows']] == [' to '] * 3


@pytest.mark.parametrize(
  'options, part',
  [
    ({'kind': 'traverze'}, 'did you mean "traverse"'),
    ({'label': 3}, '--label is no option of the sampler'),
    ({'kind': 'reconstruct', 'label': 3}, '--label'),
    ({'kind': 'reconstruct', 'split': 'tset'}, 'tset'),
    ({'num': 0}, '--num=0 must be at least 1'),
  ],
)
def test_pictures_that_cannot_be(vae, tmp_path, options, part):
  with pytest.raises(UserError, match=part):
    pictures_of(vae, tmp_path / 'x.png', **options)
