"""All metrics of samples in one evaluator: batches, a kept reference, intervals, refusals."""

import jax
import numpy as np
import pytest

from configs.defaults import samples
from engine.evaluators import reference
from errors import UserError
from metrics.base import Extracted
from metrics.features.pixels import BlockMeans
from tests.engine.evaluators.fakes import KEY, NOTHING, evaluators_of, figures_of

METRICS = dict(
  classes_hit=dict(name='classes_hit'),
  duplicates=dict(name='duplicates', most=100, quantile=0.05),
  fd=dict(name='frechet'),
  inception_score=dict(name='inception_score'),
  kid=dict(name='kid', most=100),
  memorisation=dict(name='memorisation', most=100, quantile=0.05),
  mind=dict(name='mind', most=100, projections=20, seed=0),
  prdc=dict(name='prdc', most=100, k=3),
  vendi=dict(name='vendi'),
)
NAMES = [
  'classes', 'class_kl', 'duplicates', 'fd', 'inception_score', 'kid', 'memorised',
  'authenticity', 'mind', 'precision', 'recall', 'density', 'coverage', 'vendi',
]  # fmt: skip
SPLITS = dict(samples=130, reference='train[:150]', held_out='test[:120]')


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
  """Statistics that no other test has kept, of features that are probabilities too."""
  monkeypatch.setattr(reference, 'cache_dir', lambda: tmp_path)
  extract = BlockMeans.extract

  def classified(self, parameters, images):
    (features, _) = extract(self, parameters, images)
    return Extracted(features, jax.nn.softmax(20 * features))

  monkeypatch.setattr(BlockMeans, 'extract', classified)
  return tmp_path / 'references'


def section(metrics=METRICS, **options):
  return samples(dict(name='pixels.BlockMeans', side=2), metrics, **{**SPLITS, **options})


def test_figures_are_those_of_all_rows_whatever_the_batches(kept_apart):
  first = figures_of(section(batch_size=130))
  assert [name.split('_pixels2_')[0] for name in first] == NAMES
  assert all(np.isfinite(figure.mean) for figure in first.values())
  kept = sorted(kept_apart.iterdir())
  assert len(kept) == len(METRICS) + 1  # And the held-out examples of one.
  again = figures_of(section(batch_size=17))
  assert sorted(kept_apart.iterdir()) == kept
  for name, figure in first.items():
    assert again[name].mean == pytest.approx(figure.mean, rel=1e-5), name


def test_every_figure_has_an_interval():
  found = evaluators_of(e=section())
  short = found.evaluate('e', NOTHING, KEY).figures
  for name, figure in found.evaluate('e', NOTHING, KEY, details=True).figures.items():
    assert figure.mean == pytest.approx(short[name].mean, rel=1e-6)
    low, high = figure.interval
    assert low <= figure.mean <= high


@pytest.mark.parametrize(
  ('metric', 'options', 'said'),
  [
    ('prdc', dict(samples=3), r'samples=3 must be at least 4 for .*\.prdc on 4 features'),
    ('duplicates', dict(samples=19), r'samples=19 must be at least 20 for .*\.duplicates'),
    ('memorisation', dict(held_out='test[:19]'), r'has 19 examples, .*\.memorisation .* needs 20'),
  ],
)
def test_too_few_rows_are_refused(metric, options, said):
  needed = SPLITS if metric == 'memorisation' else {**SPLITS, 'held_out': ''}
  with pytest.raises(UserError, match=said):
    figures_of(section({metric: METRICS[metric]}, **{**needed, **options}))


def test_options_that_contradict_each_other_are_refused():
  with pytest.raises(
    UserError, match=r'config\.evaluators\.e\.metrics\.prdc: most=3 must be above'
  ):
    figures_of(section(dict(prdc=dict(name='prdc', most=3, k=3)), held_out=''))
