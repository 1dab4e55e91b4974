"""Classification accuracy score: test accuracy of a classifier trained on a model's samples."""

import dataclasses
import warnings
from typing import Any, ClassVar, NamedTuple

import numpy as np

from errors import UserError
from metrics.base import FeatureBatch, Fewest, SampleMetric
from options import option

_TOO_FEW = (
  'the classification accuracy score (accuracy_score) needs samples of two classes or more; raise '
  'the number of samples, or use data with more classes'
)


class Labelled(NamedTuple):
  """Features and their classes.

  Attributes:
    features: float32 [N, D]; [0, 0] if N is 0.
    labels: int64 [N].
  """

  features: np.ndarray
  labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class AccuracyScore(SampleMetric):
  """The classification accuracy score of Ravuri and Vinyals (2019), section 3.

  It is the accuracy on real examples of a classifier that was trained on samples and the labels
  that they were conditioned on. It is low if the samples are not of their class, and if they lack
  variety. The paper trains a ResNet-50 on images; here it is scikit-learn's `MLPClassifier` on
  features: one hidden layer of ReLUs, trained by Adam until its loss converges or `max_iter` is
  reached. The score is comparable only with that of the same classifier on the same features,
  trained on as many samples and tested on the same split.
  """

  width: int = option('Units of the hidden layer.', low=1, high=100_000)
  max_iter: int = option('Most passes over the samples.', low=1)
  seed: int = option(
    "Seed of the classifier's weights and of the order of the samples.", low=0, high=2**32 - 1
  )
  needs_labels: ClassVar[bool] = True
  # Each group left out would train another classifier.
  resampled: ClassVar[bool] = False

  def fewest(self, dimension: int) -> Fewest:
    del dimension
    return Fewest(1, 2)

  def empty(self) -> Labelled:
    return Labelled(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))

  def update(self, state: Labelled, batch: FeatureBatch) -> Labelled:
    features = np.asarray(batch.features, np.float32)
    return self.merge(state, Labelled(features, np.asarray(batch.labels, np.int64)))

  def merge(self, a: Labelled, b: Labelled) -> Labelled:
    if not len(a.labels):
      return b
    return Labelled(np.concatenate([a.features, b.features]), np.concatenate([a.labels, b.labels]))

  def compare(self, reference: Labelled, samples: Labelled, held_out: Any = None) -> tuple[float]:
    """Returns the fraction of `reference` that is classified correctly, in [0, 1].

    It is NaN if a sample is not finite.

    Raises:
      UserError: all samples are of one class.
    """
    del held_out
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if len(np.unique(samples.labels)) < 2:
      raise UserError(_TOO_FEW)
    if not np.isfinite(samples.features).all():
      return (float('nan'),)
    classifier = MLPClassifier(
      hidden_layer_sizes=(self.width,),
      max_iter=self.max_iter,
      random_state=self.seed,
      early_stopping=False,
    )
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', ConvergenceWarning)
      classifier.fit(samples.features, samples.labels)
    return (float(classifier.score(reference.features, reference.labels)),)
