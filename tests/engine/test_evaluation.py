"""Every example of the split counts once, whatever the batch size; figures carry their error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.source import open_source
from engine import evaluation
from engine.evaluation import Evaluator
from engine.sharding import make_mesh

OFF = dict(crop=0, flip=False, rotate=0.0, scale=0.0, cutout=0, mixup=0.0)


class Seen:
  """An objective whose figures are what it was shown."""

  def evaluate(self, variables, batch, key):
    return {'index': batch['index'].astype(jnp.float32), 'pixel': batch['image'].mean((1, 2, 3))}

  def measure(self, variables, batch, key):
    return {
      'squared_index': jnp.square(batch['index'].astype(jnp.float32)),
      'noise': jax.random.normal(key, batch['index'].shape),
    }

  def sample(self, variables, key, num):
    return jnp.zeros((num, 28, 28, 1))


class Told(Seen):
  """Every pixel of a drawn image is a tenth of its label."""

  def sample(self, variables, key, num, label=None):
    return jnp.broadcast_to(label[:, None, None, None] / 10, (num, 28, 28, 1))


class Kept:
  """A sample metric that keeps everything; its figure is how many images there are, each kind."""

  def empty(self):
    return ()

  def update(self, state, images, labels):
    return (*state, (images, labels))

  def compare(self, reference, drawn):
    self.reference, self.drawn = reference, drawn
    return float(sum(len(images) for images, _ in reference + drawn))


class Costly(Kept):
  costly = True


class Weighed(Seen):
  """Rows count by their index; row 0 holds nothing that may count."""

  def evaluate(self, variables, batch, key):
    index = batch['index'].astype(jnp.float32)
    return {'x': jnp.where(index > 0, index % 3, jnp.nan), 'y': index * 0 + 2, 'weight': index}

  def derive(self, figures):
    return {'x': figures['x'], 'twice': 2 * figures['y']}


class Silent(Seen):
  def measure(self, variables, batch, key):
    return {}


@pytest.fixture(scope='module')
def source():
  return open_source('mnist5k', 'test[:50]', '')


def evaluator(source, batch_size, objective=None):
  section = dict(batch_size=batch_size, samples=4, metrics={}, timed_calls=0)
  return Evaluator(
    objective or Seen(), section, source, 100, OFF, make_mesh(data=1, fsdp=1, tensor=1)
  )


@pytest.mark.parametrize('batch_size', [7, 50, 64])
def test_every_example_counts_once(source, batch_size):
  key = jax.random.key(0)
  figures = evaluator(source, batch_size).evaluate({}, key, False).figures
  assert figures['index'].mean == np.arange(50).mean()
  np.testing.assert_allclose(figures['index'].standard_error, np.arange(50).std(ddof=1) / 50**0.5)
  pixels = source.read(range(50))['image'].astype(np.float64) / 255
  np.testing.assert_allclose(figures['pixel'].mean, pixels.mean(), rtol=1e-6)
  measured = evaluator(source, batch_size).measure({}, key)
  assert measured['squared_index'].mean == (np.arange(50) ** 2).mean()


@pytest.mark.parametrize('batch_size', [7, 50])
def test_weights_and_what_the_objective_derives(source, batch_size):
  weighed = evaluator(source, batch_size, Weighed())
  figures = weighed.evaluate({}, jax.random.key(0), False).figures
  index = np.arange(1, 50)
  mean = (index * (index % 3)).sum() / index.sum()
  assert [*figures] == ['x', 'twice']
  np.testing.assert_allclose(figures['x'].mean, mean, rtol=1e-6)
  # Cochran 1977, equation 6.13: rows drawn with their weights.
  error = np.sqrt(50 / 49 * (index**2 * (index % 3 - mean) ** 2).sum()) / index.sum()
  np.testing.assert_allclose(figures['x'].standard_error, error, rtol=1e-6)
  assert figures['twice'].mean == 4 and figures['twice'].standard_error is None


def test_progress_counts_up_to_the_split(source):
  seen = []
  evaluator(source, 20).evaluate({}, jax.random.key(0), False, lambda done, figures: seen.append(
    (done, figures['index'])
  ))  # fmt: skip
  assert seen == [(20, 9.5), (40, 19.5), (50, 24.5)]


def test_the_noise_is_the_key_s(source):
  noise = [evaluator(source, 20).measure({}, jax.random.key(k))['noise'].mean for k in (0, 0, 1)]
  assert noise[0] == noise[1] != noise[2]


def test_nothing_costly_runs_where_there_is_nothing_to_measure(source):
  seen = []
  progress = lambda *args: seen.append(args)  # noqa: E731
  assert evaluator(source, 20, Silent()).measure({}, jax.random.key(0), progress) == {}
  assert not seen


@pytest.fixture
def comparing(source, monkeypatch):
  """`comparing(objective, batch_size, samples, **metrics)`: an evaluator with these metrics."""

  def make(objective, batch_size, samples, **metrics):
    monkeypatch.setattr(evaluation, 'build', lambda spec, room, where: metrics[spec['name']])
    named = {name: dict(name=name) for name in metrics}
    section = dict(batch_size=batch_size, samples=samples, metrics=named, timed_calls=0)
    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    return Evaluator(objective, section, source, 100, OFF, mesh)

  return make


@pytest.mark.parametrize('batch_size', [7, 10, 64])
def test_samples_of_every_class_in_turn_beside_the_split_and_its_labels(
  comparing, source, batch_size
):
  kept = Kept()
  figures = comparing(Told(), batch_size, 23, kept=kept).compare_samples({}, jax.random.key(0))
  assert figures == {'kept': 73.0}
  images, labels = (np.concatenate(parts) for parts in zip(*kept.drawn))
  np.testing.assert_array_equal(labels, np.arange(23) % 10)
  np.testing.assert_allclose(
    images, np.broadcast_to(labels[:, None, None, None] / 10, images.shape)
  )
  images, labels = (np.concatenate(parts) for parts in zip(*kept.reference))
  real = source.read(range(50))
  np.testing.assert_array_equal(labels, real['label'])
  np.testing.assert_allclose(images, real['image'] / 255, rtol=1e-6)


def test_an_objective_that_is_told_no_label_draws_none(comparing):
  kept = Kept()
  comparing(Seen(), 10, 4, kept=kept).compare_samples({}, jax.random.key(0))
  assert [labels for _, labels in kept.drawn] == [None]
  assert [len(labels) for _, labels in kept.reference] == [10] * 5


def test_costly_metrics_are_evaluate_py_s_alone(comparing):
  kept, costly, key = Kept(), Costly(), jax.random.key(0)
  both = comparing(Told(), 20, 3, kept=kept, costly=costly)
  in_training = both({}, key)
  assert 'eval/kept' in in_training and 'eval/costly' not in in_training
  assert not hasattr(costly, 'drawn')
  assert both.compare_samples({}, key, costly=True) == {'kept': 53.0, 'costly': 53.0}
  # Read at the second call: the split has not been counted twice for the first metric.
  assert sum(len(images) for images, _ in kept.reference) == 50
  alone = comparing(Told(), 20, 3, costly=Costly())
  assert not [name for name in alone({}, key) if name.endswith('costly')]
