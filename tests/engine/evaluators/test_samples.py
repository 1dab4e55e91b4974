"""Samples are drawn once for all metrics, and compared with statistics that are kept."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.defaults import samples
from data import arrays
from data.source import Source, open_source
from engine.evaluators import reference
from engine.evaluators.samples import written_count
from errors import UserError
from metrics import frechet
from metrics.features.pixels import BlockMeans
from objectives.base import stream_key
from tests.engine.evaluators.fakes import (
  KEY,
  NOTHING,
  Conditioned,
  evaluators_of,
  figures_of,
)

FRECHET = dict(name='frechet')
CAS = dict(name='accuracy_score', width=4, max_iter=2, seed=0)


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
  """Statistics that no other test has kept."""
  monkeypatch.setattr(reference, 'cache_dir', lambda: tmp_path)
  return tmp_path / 'references'


def section(metrics=None, side=1, **options):
  return samples(dict(name='pixels.BlockMeans', side=side), metrics or dict(fd=FRECHET), **options)


def block_means(images, side):
  return np.asarray(BlockMeans(side).extract({}, images.astype(np.float32)).features, np.float64)


@pytest.mark.parametrize('batch_size', [7, 23, 500])
def test_samples_of_every_class_in_turn_beside_the_whole_split(batch_size):
  figures = figures_of(section(samples=23, batch_size=batch_size), Conditioned)
  real = open_source('mnist5k', 'test[:50]', '').read(range(50))['image'] / 255
  drawn = (np.arange(23) % 10 / 10)[:, None]
  expected = frechet.distance(
    frechet.moments(block_means(real, 1)), frechet.moments(drawn.astype(np.float32))
  )
  assert {name: figure.mean for name, figure in figures.items()} == {
    'fd_pixels1_23-test': pytest.approx(expected, rel=1e-5)
  }


def test_noise_is_of_the_key_and_of_the_sample_s_number():
  """Twice as wide as high: the left block is the number, the right one noise."""
  metrics, seen = dict(fd=FRECHET), []
  keep = frechet.Frechet.update

  def noted(self, state, batch):
    seen.append(batch.features)
    return keep(self, state, batch)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(frechet.Frechet, 'update', noted)
    found = {}
    for seed, batch_size in ((0, 7), (0, 23), (1, 23)):
      figures_of(
        section(metrics, side=2, samples=23, batch_size=batch_size), key=jax.random.key(seed)
      )
      drawn = np.concatenate([rows for rows in seen if rows.max() < 10])[-23:]
      found[seed, batch_size] = drawn
      seen.clear()
  np.testing.assert_allclose(found[0, 7], found[0, 23], rtol=1e-6)
  np.testing.assert_allclose(found[0, 7][:, 0], np.arange(23) / 100, rtol=1e-5)
  assert np.abs(found[0, 23][:, 1] - found[1, 23][:, 1]).min() > 0
  stream = stream_key(KEY, 'evaluate/samples')
  keys = jax.vmap(jax.random.fold_in, (None, 0))(stream, np.arange(23))
  noise = jax.vmap(lambda key: jax.random.uniform(key, (28, 14, 1)))(keys)
  np.testing.assert_allclose(found[0, 7][:, 1], noise[:, :14].mean((1, 2, 3)), rtol=1e-5)


def test_the_extractor_runs_once_a_batch_for_all_metrics(monkeypatch):
  calls = []
  extract = BlockMeans.extract

  def counted(self, parameters, images):
    jax.debug.callback(lambda: calls.append(len(images)))
    return extract(self, parameters, images)

  monkeypatch.setattr(BlockMeans, 'extract', counted)
  metrics = dict(a=FRECHET, b=FRECHET, cas=CAS)
  found = evaluators_of(Conditioned, e=section(metrics, side=2, samples=23, batch_size=20))
  figures = found.evaluate('e', NOTHING, KEY).figures
  jax.effects_barrier()
  assert len(figures) == 3
  # 50 examples and 23 samples in batches of 20.
  assert calls == [20] * 3 + [20] * 2
  found.evaluate('e', NOTHING, KEY)
  jax.effects_barrier()
  assert calls == [20] * 3 + [20] * 2 * 2


def test_a_reference_is_read_once_for_all_runs(monkeypatch):
  metrics = dict(fd=FRECHET, cas=CAS)
  first = figures_of(section(metrics, side=3, samples=20), Conditioned)

  def gone(*_):
    raise AssertionError('the reference is read again')

  monkeypatch.setattr(Source, 'load', gone)
  monkeypatch.setattr(Source, 'read', gone)
  again = figures_of(section(metrics, side=3, samples=20), Conditioned)
  assert again == first
  for other in (
    dict(side=4),  # another space
    dict(side=3, reference='test[:40]'),  # other examples
    dict(side=3, metrics=dict(fd=FRECHET, cas={**CAS, 'seed': 1})),  # another metric
  ):
    with pytest.raises(AssertionError, match='read again'):
      figures_of(section(**{'metrics': metrics, 'samples': 20, **other}), Conditioned)


def test_an_evaluation_in_memory_needs_no_cache(monkeypatch):
  monkeypatch.setattr(arrays, 'write', lambda *_: False)
  found = evaluators_of(Conditioned, e=section(samples=20))
  first = found.evaluate('e', NOTHING, KEY)
  monkeypatch.setattr(Source, 'load', None)
  monkeypatch.setattr(arrays, 'read', None)
  assert found.evaluate('e', NOTHING, KEY) == first


@pytest.mark.parametrize('damage', ['bytes', 'shorter', 'sums', 'missing'])
def test_a_damaged_reference_is_computed_anew(kept_apart, damage):
  first = figures_of(section(side=5, samples=26))
  (folder,) = kept_apart.iterdir()
  scatter = folder / 'scatter.npy'
  whole = scatter.read_bytes()
  if damage == 'bytes':
    scatter.write_bytes(whole[:-3] + b'abc')
  elif damage == 'shorter':
    scatter.write_bytes(whole[:-3])
  elif damage == 'sums':
    (folder / 'sums.json').write_text(json.dumps({'scatter': 1}))
  else:
    scatter.unlink()
  assert figures_of(section(side=5, samples=26)) == first
  assert scatter.read_bytes() == whole
  assert [path.name for path in kept_apart.iterdir()] == [folder.name]


def test_progress_counts_examples_and_samples():
  found, seen = evaluators_of(e=section(samples=23, batch_size=20)), []
  assert found.number('e') == 73
  found.evaluate('e', NOTHING, KEY, False, lambda done, means: seen.append((done, means)))
  assert [done for done, _ in seen] == [20, 40, 50, 70, 73]
  seen.clear()
  # The second time the reference is known.
  found.evaluate('e', NOTHING, KEY, False, lambda done, means: seen.append((done, means)))
  assert [done for done, _ in seen] == [70, 73]


def test_counts_as_they_are_written():
  assert [written_count(n) for n in (1, 999, 1000, 1500, 4000, 10_000, 50_000)] == [
    '1', '999', '1k', '1500', '4k', '10k', '50k',
  ]  # fmt: skip


def test_the_names_of_figures():
  metrics = dict(fd=FRECHET, other=FRECHET)
  figures = figures_of(section(metrics, side=7, samples=1000, reference='train[:60]'))
  assert [*figures] == ['fd_pixels7_1k-train[:60]', 'other_pixels7_1k-train[:60]']


@dataclasses.dataclass(frozen=True)
class Farther(frechet.Frechet):
  """How much farther samples are from held-out examples, and from the reference; a test's own."""

  figures = ('far', 'near')
  needs_held_out = True

  def compare(self, reference, samples, held_out=None):
    far, near = (frechet.distance(real, samples) for real in (held_out, reference))
    return far - near, near


@pytest.fixture
def farther(monkeypatch):
  monkeypatch.setattr(Farther, '__module__', frechet.__name__)
  monkeypatch.setattr(frechet, 'Farther', Farther, raising=False)
  return dict(name='frechet.Farther')


def test_a_metric_of_several_figures_sees_held_out_examples(farther):
  metrics = dict(fd=FRECHET, both=farther)
  figures = figures_of(
    section(metrics, side=2, samples=20, reference='train[:30]', held_out='test[:40]'), Conditioned
  )
  names = ['fd', 'far', 'near']
  fd, far, near = (figures[f'{name}_pixels2_20-train[:30]'].mean for name in names)
  assert near == fd
  held_out = figures_of(section(side=2, samples=20, reference='test[:40]'), Conditioned)
  assert far + near == pytest.approx(held_out['fd_pixels2_20-test[:40]'].mean, rel=1e-9)


@pytest.mark.parametrize(
  ('metrics', 'options', 'message'),
  [
    ({'both': 1}, {}, 'e.metrics.both needs examples that the run was not trained on'),
    ({'both': 1}, dict(held_out='test'), 'e.held_out=test must differ from config.evaluators.e.'),
    ({'both': 1, 'near': 0}, dict(held_out='train'), 'have both a figure "near"'),
    ({}, {}, 'e.metrics holds none'),
  ],
)
def test_a_held_out_split_and_names_that_cannot_be(metrics, options, message, farther):
  metrics = {name: farther if several else FRECHET for name, several in metrics.items()}
  given = {**section(side=2, samples=20).to_dict(), 'metrics': metrics, **options}
  with pytest.raises(UserError, match=message):
    evaluators_of(Conditioned, e=ConfigDict(given))


@dataclasses.dataclass(frozen=True)
class Blocks(Conditioned):
  """Samples are four blocks, each of one random gray."""

  def _sample(self, variables, keys, numbers, label):
    grays = jax.vmap(lambda key: jax.random.uniform(key, (2, 2, 1)))(keys)
    return grays.repeat(14, axis=1).repeat(14, axis=2)


def test_intervals_are_those_of_other_samples():
  options = dict(side=2, samples=200, batch_size=64, reference='train[:300]')
  found = evaluators_of(Blocks, e=section(**options))
  (short,) = found.evaluate('e', NOTHING, KEY).figures.values()
  assert short.interval is None
  (long,) = found.evaluate('e', NOTHING, KEY, details=True).figures.values()
  assert long.mean == pytest.approx(short.mean, rel=1e-9)
  low, high = long.interval
  assert low < long.mean < high
  others = [
    next(iter(found.evaluate('e', NOTHING, jax.random.key(seed)).figures.values())).mean
    for seed in range(1, 21)
  ]
  inside = np.mean([low <= other <= high for other in others])
  assert inside >= 0.7
  # As wide as the spread of other samples' figures demands, and not many times wider.
  assert 0.3 < (high - low) / (4 * np.std(others)) < 3
