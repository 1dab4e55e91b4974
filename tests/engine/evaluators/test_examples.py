"""Every example of a split counts once, whatever the batch size; figures carry their error."""

import jax
import numpy as np
import pytest

from configs.defaults import examples, measure
from data.source import open_source
from objectives.base import stream_key
from tests.engine.evaluators.fakes import (
  KEY,
  NOTHING,
  Weighted,
  evaluators_of,
  figures_of,
)

REPORT = dict(report=dict(name='classification.Report'))


@pytest.mark.parametrize('batch_size', [7, 50, 500])
def test_every_example_counts_once(batch_size):
  figures = figures_of(examples(batch_size=batch_size))
  assert [*figures] == ['index', 'noise', 'pixel']
  assert figures['index'].mean == np.arange(50).mean()
  np.testing.assert_allclose(figures['index'].standard_error, np.arange(50).std(ddof=1) / 50**0.5)
  pixels = open_source('mnist5k', 'test[:50]', '').read(range(50))['image'] / 255
  np.testing.assert_allclose(figures['pixel'].mean, pixels.mean(), rtol=1e-6)
  measured = figures_of(measure('power', batch_size=batch_size, power=3))
  assert measured['power'].mean == pytest.approx((np.arange(50.0) ** 3).mean())


@pytest.mark.parametrize('batch_size', [7, 50])
def test_weights_and_what_the_objective_derives(batch_size):
  figures = figures_of(examples(batch_size=batch_size), Weighted)
  index = np.arange(1, 50)
  mean = (index * (index % 3)).sum() / index.sum()
  assert [*figures] == ['x', 'twice']
  np.testing.assert_allclose(figures['x'].mean, mean, rtol=1e-6)
  # Cochran 1977, equation 6.13: rows drawn with their weights.
  error = np.sqrt(50 / 49 * (index**2 * (index % 3 - mean) ** 2).sum()) / index.sum()
  np.testing.assert_allclose(figures['x'].standard_error, error, rtol=1e-6)
  assert figures['twice'].mean == 4 and figures['twice'].standard_error is None


def test_noise_is_of_the_key_and_of_the_example_s_number():
  normal = jax.vmap(jax.random.normal)
  for seed in (0, 1):
    stream = stream_key(jax.random.key(seed), 'evaluate')
    keys = jax.vmap(jax.random.fold_in, (None, 0))(stream, np.arange(50))
    for section in (examples(batch_size=7), examples(), measure('power', batch_size=20)):
      found = figures_of(section, key=jax.random.key(seed))
      assert found['noise'].mean == pytest.approx(float(normal(keys).mean()), abs=1e-6)


def test_a_batch_is_never_larger_than_the_split():
  shapes = []

  class Noted(Weighted):
    def evaluate(self, variables, batch, keys):
      shapes.append(batch['image'].shape[0])
      return super().evaluate(variables, batch, keys)

  figures_of(examples(batch_size=500), Noted)
  figures_of(examples(batch_size=20), Noted)
  assert set(shapes) == {50, 20}


@pytest.mark.parametrize(
  'split, n', [('test', 50), ('train', 4000), ('test[10:40]', 30), ('test[0:]', 1000)]
)
def test_the_splits_by_name(split, n):
  found = evaluators_of(e=examples(split=split))
  assert found.number('e') == found.spec('e').n == n
  figures = found.evaluate('e', NOTHING, KEY).figures
  assert figures['e/index'].mean == (n - 1) / 2


def test_a_held_out_fold_is_the_test_split():
  pixels = open_source('mnist5k', 'train', '').read(range(4000))['image'].mean((1, 2, 3)) / 255
  for fold, part in ((0, slice(0, 1333)), (2, slice(2666, 4000))):
    figures = figures_of(examples(), folds=3, fold=fold)
    np.testing.assert_allclose(figures['pixel'].mean, pixels[part].mean(), rtol=1e-5)
  trained_on = figures_of(examples(split='train'), folds=3, fold=0)
  np.testing.assert_allclose(trained_on['pixel'].mean, pixels[1333:3999].mean(), rtol=1e-5)


def test_metrics_of_predictions_read_labels_and_predictions():
  section = examples(batch_size=20, metrics=REPORT)
  found = evaluators_of(e=section)
  labels = open_source('mnist5k', 'test[:50]', '').read(range(50))['label']
  predictions = np.arange(50) % 10
  counts = np.zeros((10, 10), int)
  np.add.at(counts, (labels, predictions), 1)
  headlines = found.evaluate('e', NOTHING, KEY)
  details = found.evaluate('e', NOTHING, KEY, details=True)
  assert details.tables == {'e/confusion_matrix': counts.tolist()}
  assert details.pictures['e/confusion_matrix'].dtype == np.uint8
  present = counts.sum(axis=1) > 0
  recall = (np.diag(counts)[present] / counts.sum(axis=1)[present]).mean()
  assert headlines.figures['e/recall'].mean == pytest.approx(recall)
  assert not headlines.tables and not headlines.pictures
  assert 'e/recall/3' in details.figures and 'e/recall/3' not in headlines.figures


@pytest.mark.parametrize(
  'section, name',
  [(examples(batch_size=20), 'index'), (measure('power', batch_size=20, power=1), 'power')],
)
def test_progress_is_that_of_examples_and_means_so_far(section, name):
  found, seen = evaluators_of(e=section), []
  found.evaluate('e', NOTHING, KEY, False, lambda n, means: seen.append((n, means[name])))
  assert seen == [(20, 9.5), (40, 19.5), (50, 24.5)]
  assert found.number('e') == 50


def test_means_so_far_are_weighted():
  seen = []
  found = evaluators_of(Weighted, e=examples(batch_size=20))
  found.evaluate('e', NOTHING, KEY, False, lambda n, means: seen.append(means['x']))
  index = np.arange(40)
  assert seen[1] == pytest.approx((index * (index % 3)).sum() / index.sum())
