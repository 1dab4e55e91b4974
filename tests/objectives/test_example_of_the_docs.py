"""The objective that docs/add_an_objective.md writes out is one: it trains, evaluates, samples."""

import importlib.util
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.build import call
from errors import UserError
from objectives.base import numbered_keys
from options import complete
from tests.objectives.test_accumulation import IMAGES, ROWS, SHAPE
from tests.steps import assert_accumulation_changes_nothing, first_state, train_step

KEY = jax.random.key(0)
PAGE = Path(__file__).parents[2] / 'docs' / 'add_an_objective.md'


class Restorer(nn.Module):
  """One hidden layer with dropout."""

  dropout: float

  @nn.compact
  def __call__(self, images, train):
    x = nn.tanh(nn.Dense(8)(images.reshape(len(images), -1)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.sigmoid(nn.Dense(16)(x)).reshape(images.shape)


@pytest.fixture(scope='module')
def example(tmp_path_factory):
  """The first Python of the page, as the module that it says it is."""
  (code, *_) = re.findall(r'^```python\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
  path = tmp_path_factory.mktemp('objectives') / 'denoise.py'
  path.write_text(code)
  spec = importlib.util.spec_from_file_location('objectives.denoise', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def make(example, dropout=0.5, noise=0.2):
  return example.Denoise({'model': Restorer(dropout)}, image_shape=SHAPE, noise=noise)


@pytest.fixture(scope='module')
def trained(example):
  """The objective, variables after some steps, and the first and last loss."""
  step = train_step(make(example), ROWS)
  advance, state, losses = jax.jit(step.__call__), first_state(step, IMAGES), []
  for _ in range(40):
    state, metrics = advance(state, IMAGES)
    losses.append(float(metrics['model/loss'].value))
    assert metrics['model/removed'].value + losses[-1] > 0
  variables = {'model': {'params': state.params['model']}}
  return step.objective, variables, losses


def test_it_trains(trained):
  _, _, losses = trained
  assert len(set(losses)) == 40
  assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_accumulation_changes_nothing(example):
  assert_accumulation_changes_nothing(make(example, dropout=0.0), IMAGES)


def test_it_evaluates_measures_and_pictures(trained):
  objective, variables, _ = trained
  keys = numbered_keys(KEY, jnp.arange(ROWS))
  figures = objective.evaluate(variables, IMAGES, keys)
  assert figures['mse'].shape == (ROWS,)
  ((name, measurement),) = objective.measurements.items()
  options = complete(measurement.options, {}, name)
  same = measurement.measure(variables, IMAGES, keys, **options)
  np.testing.assert_array_equal(same['mse'], figures['mse'])
  worse = measurement.measure(variables, IMAGES, keys, noise=5.0)
  assert worse['mse'].mean() > figures['mse'].mean()
  picture = objective.pictures['restore'].render(variables, IMAGES, keys, 3)
  assert picture.shape == (2, 3, *SHAPE) and picture.min() >= 0 and picture.max() <= 1


def test_a_sample_depends_on_its_own_key_alone(trained):
  objective, variables, _ = trained
  sampler = objective.sampler
  options = complete(sampler.options, {}, 'sample.py')
  many, few = (
    sampler.sample(variables, numbered_keys(KEY, numbers), numbers, **options)
    for numbers in (jnp.arange(5), jnp.arange(2))
  )
  assert many.shape == (5, *SHAPE)
  np.testing.assert_allclose(few, many[:2], atol=1e-6)


def test_a_mistake_is_named(example):
  given = dict(modules={}, image_shape=SHAPE, noise=0.0)
  with pytest.raises(UserError, match=r'config\.objective\.noise=0\.0 must be above 0'):
    call(example.Denoise, given, 'config.objective')
