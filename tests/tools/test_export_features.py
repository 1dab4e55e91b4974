"""What is exported from a run are the features of the run's own network."""

import json
import re

import jax
import numpy as np
import pytest

from configs import cnn_binary, features, gan, mlp
from data.source import open_source
from engine.restore import restore_run
from errors import UserError
from metrics.features.classifier import Classifier
from tests import runs

SMALL = (
  '--config=configs/features.py',
  '--config.modules.model.channels=2,4',
  '--config.modules.model.widths=16,8',
  '--config.data.batch_size=16',
  '--config.optimizer.model.schedule.warmup=0',
  '--config.train.seed=3',
)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'own'
  more = ('--config.evaluators.speed.calls=2', '--config.train.steps=3')
  runs.train(*SMALL, *more, f'--workdir={folder}')
  return folder


def test_the_extractor_computes_what_the_run_does(workdir, tmp_path, script):
  out = tmp_path / 'own.npz'
  done = script('-m', 'tools.export_features', f'--workdir={workdir}', f'--out={out}')
  assert done.returncode == 0, done.stderr
  images = open_source('mnist5k', 'test', '').read(range(32))['image'].astype(np.float32) / 255
  extractor = Classifier(str(out))
  found = jax.jit(extractor.extract)(extractor.parameters, images)
  assert found.features.shape == (32, 8)
  restored = restore_run(str(workdir), 'latest')
  network = restored.session.objective.modules['model']
  logits = network.apply(restored.variables()['model'], images, train=False)
  # The parameters are rounded to float16.
  np.testing.assert_allclose(found.probabilities, jax.nn.softmax(logits), atol=2e-3)


def test_the_description_says_how_to_train_it_again(workdir, tmp_path, script):
  out = tmp_path / 'own.npz'
  done = script('-m', 'tools.export_features', f'--workdir={workdir}', f'--out={out}')
  told = json.loads((tmp_path / 'own.json').read_text())
  assert told['train'].split() == ['python', 'train.py', '--config=configs/features.py:mnist5k',
                                   *sorted([*SMALL[1:], '--config.train.steps=3'])]  # fmt: skip
  assert (told['seed'], told['step'], told['image_shape']) == (3, 3, [28, 28, 1])
  assert told['data']['identity'] == open_source('mnist5k', 'train', '').spec.identity
  assert told['tested']['n'] == 1000
  said = re.search(r'accuracy ([\d.]+) on 1,000 examples of mnist5k test, step 3 of', done.stdout)
  assert float(said[1]) == pytest.approx(told['tested']['accuracy'], abs=1e-4)
  # The command in the file is one that train.py takes.
  again = script(*told['train'].split()[1:], '--print_config')
  assert again.returncode == 0 and "'widths': (16, 8)" in again.stdout, again.stderr


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (lambda: runs.small(gan.get_config()), r'has modules of mlp\.Discriminator, mlp\.Generator'),
    (
      lambda: runs.small(mlp.get_config()),
      r'has modules of mlp, and features are those of a "cnn"',
    ),
    (cnn_binary.get_config, r'has the objective "classify" with 1 outputs'),
  ],
)
def test_runs_without_such_features_are_refused(make, said, tmp_path):
  from commands.export_features import export_features

  workdir = runs.saved_run(tmp_path / 'run', make())
  with pytest.raises(UserError, match=said):
    export_features(workdir, 'latest', str(tmp_path / 'own.npz'))
  assert not (tmp_path / 'own.npz').exists()


@pytest.mark.parametrize('out', ['own.bin', 'my_own.npz'])
def test_names_that_cannot_be_read_are_refused(out, tmp_path):
  from commands.export_features import export_features

  config = features.get_config()
  config.modules.model.channels, config.modules.model.widths = (2, 2, 2), (4,)
  workdir = runs.saved_run(tmp_path / 'run', config)
  with pytest.raises(UserError, match=r'must be a file \*\.npz whose name, which figures'):
    export_features(workdir, 'latest', str(tmp_path / out))
