"""The score counts directions of features."""

import numpy as np
import pytest

from metrics.vendi import Vendi
from tests.metrics.sample_states import figures, normal

METRIC = Vendi()


def score(samples):
  return figures(METRIC, samples[:1], samples)


def test_by_hand():
  assert score(3 * np.eye(7)) == pytest.approx(7)
  assert score(np.repeat(np.eye(7), 5, axis=0)) == pytest.approx(7)
  assert score(np.outer(np.arange(1, 9), [1, 2, 3])) == pytest.approx(1)
  # Two directions with a cosine of ½: eigenvalues ¾ and ¼.
  expected = np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
  assert score([[1, 0], [0.5, np.sqrt(0.75)]]) == pytest.approx(expected)


def test_vectors_of_zeros_are_one_more_direction():
  black = np.zeros((9, 4))
  assert score(black) == pytest.approx(1)
  assert score(np.concatenate([np.eye(4), black[:1]])) == pytest.approx(5)


def test_as_the_matrix_of_similarities_says():
  # Friedman and Dieng 2023: of the [N, N] matrix, here with more features than samples and fewer.
  for number, dimension in ((40, 90), (90, 40)):
    samples = normal(0, number, dimension, mean=0.5).astype(np.float32)
    directions = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.float64(directions) @ directions.T / number)
    values = values[values > 1e-12]
    expected = np.exp(-np.sum(values * np.log(values)))
    assert score(samples) == pytest.approx(expected, rel=1e-5)


def test_a_generator_with_few_modes_scores_low():
  modes = normal(0, 3, 20, 5)
  few = modes[np.arange(300) % 3] + 0.1 * normal(1, 300, 20)
  assert score(few) < 4 < 15 < score(normal(2, 300, 20))
