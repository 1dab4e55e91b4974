"""Classes left out, and classes that are too frequent, are seen."""

import math

import numpy as np
import pytest

from metrics.classes_hit import ClassesHit
from tests.metrics.sample_states import figures, normal, softmax

METRIC = ClassesHit()


def of(labels, number):
  """Probabilities that are highest for the labels."""
  return softmax(3 * np.eye(number)[np.asarray(labels)] + 0.1 * normal(0, len(labels), number))


def test_by_hand():
  found = figures(METRIC, of([0, 0, 1, 2], 4), of([0, 1, 1, 1], 4))
  # ¼ log(¼ / ½) + ¾ log(¾ / ¼).
  expected = 0.25 * math.log(0.5) + 0.75 * math.log(3)
  assert found == pytest.approx(dict(classes=2, class_kl=expected), rel=1e-12)


def test_all_classes_as_often_as_they_should_be():
  labels = np.arange(600) % 3
  assert figures(METRIC, of(labels, 3), of(labels[::-1], 3)) == dict(classes=3, class_kl=0)


def test_a_class_left_out():
  labels = np.arange(600) % 3
  found = figures(METRIC, of(labels, 3), of(labels % 2, 3))
  assert found['classes'] == 2
  # q is (⅔, ⅓), p (⅓, ⅓, ⅓).
  assert found['class_kl'] == pytest.approx(2 / 3 * math.log(2))


def test_the_kl_is_the_reverse_one():
  # The other one would be infinite for a class left out, and finite for one invented.
  assert figures(METRIC, of([0, 1], 3), of([0, 0], 3))['class_kl'] == pytest.approx(math.log(2))
  invented = figures(METRIC, of([0, 0], 3), of([0, 1], 3))
  assert invented['classes'] == 2 and math.isnan(invented['class_kl'])


def test_a_thousand_modes():
  wanted = np.arange(25_600) % 1000
  drawn = np.random.default_rng(0).integers(0, 700, 25_600)
  sure = np.eye(1000, dtype=np.float32)
  found = figures(METRIC, sure[wanted], sure[drawn])
  assert found['classes'] == 700
  assert found['class_kl'] == pytest.approx(math.log(1000 / 700), abs=0.03)
