"""Objectives whose figures are known, and evaluators of them."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import mlp
from engine.evaluation import Evaluators, open_evaluators
from engine.session import Session, open_session
from engine.state import Weights
from objectives.base import Measurement, Objective, Player, Sampler
from options import Option

# Evaluators of the objectives below look at no parameters.
NOTHING = Weights({}, {}, {})
KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Seen(Objective):
  """Its figures are what it was given."""

  @property
  def players(self):
    return (Player('model', ('model',), None),)

  def init(self, key, batch):
    raise NotImplementedError

  def evaluate(self, variables, batch, keys):
    return {
      'index': batch['index'].astype(jnp.float32),
      'pixel': batch['image'].mean((1, 2, 3)),
      'noise': jax.vmap(jax.random.normal)(keys),
      'prediction': batch['index'] % 10,
    }

  @property
  def measurements(self):
    options = {'power': Option(int, 2, 'Of the index.', low=1, high=3)}
    return {'power': Measurement(self._power, options)}

  def _power(self, variables, batch, keys, power):
    noise = jax.vmap(jax.random.normal)(keys)
    return {'power': batch['index'].astype(jnp.float32) ** power, 'noise': noise}

  @property
  def sampler(self):
    return Sampler('image', self._sample)

  def _sample(self, variables, keys, numbers):
    """The left half of image i is i / 100, the right half noise of its own."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, (28, 14, 1)))(keys)
    left = jnp.broadcast_to(numbers[:, None, None, None] / 100, noise.shape)
    return jnp.concatenate([left, noise], axis=2)


@dataclasses.dataclass(frozen=True)
class Conditioned(Seen):
  """Every pixel of a sample is a tenth of its label."""

  @property
  def sampler(self):
    options = {'label': Option(int, None, 'Class of all.')}
    return Sampler('image', self._sample, options, self._labels)

  def _labels(self, numbers, label):
    return numbers % 10 if label is None else jnp.full(numbers.shape, label)

  def _sample(self, variables, keys, numbers, label):
    labels = self._labels(numbers, label)
    return jnp.broadcast_to(labels[:, None, None, None] / 10, (*labels.shape, 28, 28, 1))


@dataclasses.dataclass(frozen=True)
class Weighted(Seen):
  """Rows count by their index; row 0 holds nothing that may count."""

  def evaluate(self, variables, batch, keys):
    index = batch['index'].astype(jnp.float32)
    return {'x': jnp.where(index > 0, index % 3, jnp.nan), 'y': index * 0 + 2, 'weight': index}

  def derive(self, figures):
    return {'x': figures['x'], 'twice': 2 * figures['y']}


def session_of(evaluators: dict, objective=Seen, **data) -> Session:
  """A session with these evaluators of a fake objective; `data` are options of `config.data`."""
  config = mlp.get_config()
  config.modules.model.widths = (4,)
  config.data.update({'test_split': 'test[:50]', **data})
  config.evaluators = ConfigDict(evaluators)
  return open_session(config)._replace(objective=objective(modules={}))


def evaluators_of(objective=Seen, data=(), **evaluators) -> Evaluators:
  return open_evaluators(session_of(evaluators, objective, **dict(data)), unscheduled=True)


def figures_of(section, objective=Seen, key=KEY, **data) -> dict:
  """The figures of one evaluator called `e`, without that name."""
  found = evaluators_of(objective, data, e=section).evaluate('e', NOTHING, key).figures
  return {name.removeprefix('e/'): figure for name, figure in found.items()}
