"""The score is between 1 and the number of classes."""

import numpy as np
import pytest

from metrics.inception_score import InceptionScore
from tests.metrics.sample_states import figures, normal, softmax

METRIC = InceptionScore()


def score(probabilities):
  return figures(METRIC, probabilities[:1], probabilities)


def test_by_hand():
  sure = np.eye(4)[np.arange(20) % 4]
  assert score(sure) == pytest.approx(4)
  assert score(sure[::4]) == pytest.approx(1)  # One class.
  assert score(np.full((20, 4), 0.25)) == pytest.approx(1)  # No sample is of a class.
  # Rows (¾, ¼) and (¼, ¾): p(y) is (½, ½), and each KL is ¾ log 1.5 + ¼ log 0.5.
  both = score([[0.75, 0.25], [0.25, 0.75]] * 3)
  assert both == pytest.approx(np.exp(0.75 * np.log(1.5) + 0.25 * np.log(0.5)))


def test_a_model_that_leaves_classes_out_scores_lower():
  logits = 5 * np.eye(10)[np.arange(500) % 10] + normal(0, 500, 10)
  assert score(softmax(logits)) > 1.5 * score(softmax(logits[np.arange(500) % 10 < 5]))


def test_as_torch_fidelity_computes_it():
  torch = pytest.importorskip('torch', reason='an extra, in requirements-extras.txt')
  pytest.importorskip('torch_fidelity', reason='an extra, in requirements-extras.txt')
  from torch_fidelity.metric_isc import isc_features_to_metric

  logits = normal(0, 300, 10, 2)
  found = isc_features_to_metric(torch.from_numpy(logits), splits=1, shuffle=False)
  expected = found['inception_score_mean']
  assert score(softmax(logits)) == pytest.approx(expected, rel=1e-5)
  parts = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
  mean = np.mean([score(softmax(part)) for part in np.array_split(logits, 10)])
  assert mean == pytest.approx(parts['inception_score_mean'], rel=1e-5)
  assert mean < expected
