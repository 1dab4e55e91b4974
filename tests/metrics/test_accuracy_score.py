"""The classifier learns from samples and is tested on real examples."""

import math
import warnings

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from errors import UserError
from metrics.accuracy_score import AccuracyScore
from metrics.base import FeatureBatch

METRIC = AccuracyScore(width=16, max_iter=200, seed=3)


def of_classes(labels, noise, seed):
  """Features [N, 9] in [0, 1] of which three are large for each class."""
  labels = np.asarray(labels)
  features = np.random.default_rng(seed).random((len(labels), 3, 3)) * noise
  features[np.arange(len(labels)), labels] += 1 - noise
  return features.reshape(len(labels), 9).astype(np.float32)


def state_of(features, labels, pieces=1):
  state = METRIC.empty()
  for part in np.array_split(np.arange(len(labels)), pieces):
    state = METRIC.update(
      state, FeatureBatch(features[part], part, labels=np.asarray(labels)[part])
    )
  return state


def test_by_hand_on_classes_that_are_plain_to_see():
  labels = np.arange(60) % 3
  sampled = state_of(of_classes(labels, 0.2, 0), labels)
  real = of_classes(labels, 0.2, 1)
  assert METRIC.compare(state_of(real, labels), sampled) == (1,)
  assert METRIC.compare(state_of(real, (labels + 1) % 3), sampled) == (0,)
  half = np.where(np.arange(60) < 30, labels, (labels + 1) % 3)
  assert METRIC.compare(state_of(real, half), sampled) == (0.5,)


def test_a_model_that_leaves_a_class_out_loses_that_class():
  labels = np.arange(60) % 3
  sampled = state_of(of_classes(labels % 2, 0.2, 0), labels % 2)
  assert METRIC.compare(state_of(of_classes(labels, 0.2, 1), labels), sampled) == (2 / 3,)


def test_it_is_scikit_learn_s_classifier_whatever_the_pieces():
  labels = np.random.default_rng(5).integers(0, 3, 150)
  features, real = of_classes(labels, 0.85, 6), of_classes(labels[:101], 0.85, 7)
  classifier = MLPClassifier(hidden_layer_sizes=(16,), max_iter=200, random_state=3)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    classifier.fit(features, labels)
  expected = np.mean(classifier.predict(real) == labels[:101])
  assert 0.4 < expected < 0.95
  (found,) = METRIC.compare(state_of(real, labels[:101], 3), state_of(features, labels, 4))
  assert found == pytest.approx(expected, abs=1e-12)


def test_a_classifier_that_runs_out_of_passes_is_no_news():
  labels = np.arange(12) % 3
  state = state_of(of_classes(labels, 0.5, 0), labels)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    AccuracyScore(width=4, max_iter=1, seed=0).compare(state, state)


def test_merged_states_are_those_of_the_whole():
  labels = np.arange(20) % 3
  features = of_classes(labels, 0.5, 0)
  whole = state_of(features, labels)
  merged = METRIC.merge(state_of(features[:7], labels[:7]), state_of(features[7:], labels[7:]))
  for a, b in zip(whole, merged):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def test_what_cannot_be():
  features = of_classes([0, 1], 0.5, 0)
  assert METRIC.needs_labels
  one = state_of(features, [1, 1])
  with pytest.raises(UserError, match='two classes or more'):
    METRIC.compare(one, one)


def test_samples_that_are_not_finite():
  labels = np.arange(12) % 3
  features = of_classes(labels, 0.5, 0)
  broken = state_of(np.where(features == features[3, 1], np.nan, features), labels)
  assert math.isnan(METRIC.compare(state_of(features, labels), broken)[0])
