"""A data set that a run drew: the images of sample.py, with their labels, found by its name."""

import json

import jax
import numpy as np
import pytest

from commands import cli, export_dataset
from commands.sample_run import Request, sample_run
from data.folders import cache_dir
from data.source import open_source
from data.spec import Spec
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.metadata import checkpoint_meta
from engine.patience import Patience
from engine.pictures import to_uint8
from engine.restore import restore_run
from engine.session import open_session
from errors import UserError
from objectives.base import numbered_keys, stream_key
from tests.conftest import ROOT

NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def untrained(workdir, name):
  """A run as it is before its first step, small, with a checkpoint called step 2."""
  config = cli.load(f'{ROOT}/configs/{name}.py')
  for module in config.modules.values():
    module.widths = (8,)
  features = {'image': ((28, 28, 1), 'uint8'), 'label': ((), 'int32')}
  spec = Spec('mnist5k', 'train', 4000, features, 10, 'identity', NAMES)
  session = open_session(config, spec)
  run.claim(str(workdir), config, spec)
  checkpoints = Checkpoints(str(workdir), **to_plain(config.checkpoint))
  checkpoints.save(2, session.init(), checkpoint_meta(session, 2, [Patience()], []), [])
  checkpoints.close()
  return workdir


@pytest.fixture(scope='module')
def cgan(tmp_path_factory):
  return untrained(tmp_path_factory.mktemp('cgan') / 'run', 'cgan')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('ATELIER_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)


def write(workdir, out, num=None, kind='prior', seed=0, **conditions):
  sample_run(Request(str(workdir), kind, num, str(out), seed=seed, options=conditions))


def test_images_of_every_class_in_turn_as_sample_py_draws_them(cgan, tmp_path, monkeypatch):
  counted = []

  class Counted(export_dataset.Counting):
    def __call__(self, done, figures):
      counted.append(done)

  monkeypatch.setattr(export_dataset, 'Counting', Counted)
  write(cgan, 'synthetic', num=507, seed=4)
  source = open_source('synthetic', 'train', '')
  assert (len(source), source.spec.class_names) == (507, NAMES)
  read = source.read(range(507))
  np.testing.assert_array_equal(read['label'], np.arange(507) % 10)
  restored = restore_run(str(cgan), 'latest')
  write(cgan, tmp_path / 'x.npz', num=507, seed=4)
  arrays = np.load(tmp_path / 'x.npz')['image']
  np.testing.assert_array_equal(read['image'], to_uint8(arrays))
  # The labels are those that the generator was conditioned on, in the second chunk too.
  gan, numbers = restored.session.objective, np.arange(256, 507)
  latents = gan.latents(numbered_keys(stream_key(jax.random.key(4), 'sample'), numbers))
  generate = jax.jit(lambda labels: gan.generate(restored.variables(), latents, labels))
  expected = np.asarray(generate(read['label'][256:]))
  assert np.abs(read['image'][256:] / 255 - expected).max() < 0.51 / 255
  wrong = np.asarray(generate((read['label'][256:] + 1) % 10))
  assert np.abs(read['image'][256:] / 255 - wrong).max() > 2 / 255
  assert counted == [256, 507]


def test_the_script_says_where_it_is_and_how_to_train_on_it(cgan, script, tmp_path):
  done = script('sample.py', f'--workdir={cgan}', f'--out={tmp_path}/mine/threes', '--label=3',
                '--seed=9', '--num=12')  # fmt: skip
  assert done.returncode == 0, done.stderr
  folder = tmp_path / 'mine' / 'threes' / '1.0.0'
  lines = done.stdout.splitlines()
  assert lines[-2] == f'threes: 12 images, step 2 of {cgan}: {folder}'
  assert lines[-1] == (
    'train on it: python train.py --config=configs/cnn.py:threes --config.data.test_name=mnist5k '
    f'--config.data.data_dir={tmp_path}/mine'
  )
  source = open_source('threes', 'train', str(tmp_path / 'mine'))
  assert set(source.read(range(12))['label']) == {3}
  described = json.loads((folder / 'dataset_info.json').read_text())['description']
  for part in (str(cgan), 'step 2', 'seed 9', 'label 3'):
    assert part in described
  with pytest.raises(UserError, match='delete that folder'):
    write(cgan, tmp_path / 'mine' / 'threes')


def test_the_command_finds_what_was_written_where_it_is_looked_for(cgan, capsys):
  write(cgan, 'synthetic', num=3)
  said = capsys.readouterr().out.splitlines()
  assert said[-2].endswith(str(cache_dir() / 'tfds' / 'synthetic' / '1.0.0'))
  assert said[-1] == (
    'train on it: python train.py --config=configs/cnn.py:synthetic --config.data.test_name=mnist5k'
  )


@pytest.mark.parametrize(
  'options, part',
  [
    ({'kind': 'interpolate'}, 'must end in .png'),
    ({'num': 0}, '--num=0 must be at least 1'),
    ({'seed': -1}, '--seed=-1 must be at least 0'),
    ({'out': 'mnist5k'}, 'data/tfds/builders/mnist5k.py'),
    ({'label': 10}, '--label=10 must be at least 0 and at most 9'),
    ({'colour': 1}, '--colour is no option of the sampler'),
  ],
)
def test_data_sets_that_cannot_be(cgan, options, part):
  with pytest.raises(UserError, match=part):
    write(cgan, **{'out': 'synthetic', 'num': 2, **options})
  assert not (cache_dir() / 'tfds' / 'synthetic').exists()


def test_a_model_that_is_told_no_label_makes_images_alone(tmp_path, capsys):
  write(untrained(tmp_path / 'gan', 'gan'), 'plain', num=6)
  assert 'configs/vae.py:plain' in capsys.readouterr().out
  source = open_source('plain', 'train', '')
  assert (len(source), list(source.spec.features)) == (6, ['image'])


def test_a_classifier_draws_nothing(tmp_path):
  with pytest.raises(UserError, match=r'is not sampled from, which --kind=prior would do'):
    write(untrained(tmp_path / 'mlp', 'mlp'), 'nothing', num=2)
