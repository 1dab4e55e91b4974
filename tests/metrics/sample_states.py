"""States of metrics of samples, from arrays of features or of probabilities."""

import numpy as np

from metrics.base import FeatureBatch


def rows_of(values, numbers=None, probabilities=False):
  """A batch of features, or of probabilities beside features of no interest."""
  values = np.asarray(values, np.float32)
  numbers = np.arange(len(values)) if numbers is None else numbers
  if probabilities:
    return FeatureBatch(np.zeros((len(values), 3), np.float32), numbers, values)
  return FeatureBatch(values, numbers)


def state_of(metric, values, parts=None):
  """The state of all rows, added in `parts`: lists of their numbers."""
  values = np.asarray(values, np.float32)
  state = metric.empty()
  for part in [np.arange(len(values))] if parts is None else parts:
    state = metric.update(state, rows_of(values[part], part, metric.needs_probabilities))
  return state


def figures(metric, real, samples, held_out=None):
  """What a metric says of arrays, by the name of the figure; the one of a metric with one alone."""
  states = [None if each is None else state_of(metric, each) for each in (real, samples, held_out)]
  found = metric.compare(*states)
  assert all(isinstance(value, float) for value in found)
  return dict(zip(metric.figures, found, strict=True)) if metric.figures else found[0]


def normal(seed, number, dimension=8, scale=1.0, mean=0.0):
  """Independent normal features [number, dimension]."""
  return mean + scale * np.random.default_rng(seed).standard_normal((number, dimension))


def softmax(logits):
  """Probabilities [N, K] in float64."""
  exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
  return exponentials / exponentials.sum(axis=1, keepdims=True)
