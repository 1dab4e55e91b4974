"""Classification accuracy score: how much a classifier learns from what a model drew."""

import dataclasses
import warnings
from typing import ClassVar, NamedTuple

import numpy as np

from errors import UserError


class Labelled(NamedTuple):
  """Images as they came, in pieces.

  Attributes:
    images: each float32 [N, H·W·C] in [0, 1].
    labels: each int [N].
  """

  images: tuple[np.ndarray, ...]
  labels: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class AccuracyScore:
  """Accuracy on real images of a classifier trained on drawn ones and the labels they were drawn
  for: the classification accuracy score of Ravuri and Vinyals (2019), section 3.

  It is low where the images are not of their class, and where they are but lack variety. The paper
  trains a ResNet-50; here it is scikit-learn's `MLPClassifier` on pixels in [0, 1]: one hidden
  layer of ReLUs, trained by Adam until its loss settles or `max_iter` is reached. The number is
  comparable only with that of the same classifier, trained on as many images and tested on the same
  split.

  Attributes:
    width: of the hidden layer.
    max_iter: most passes over the drawn images.
    seed: of the classifier's weights and of the order of the images.
  """

  width: int
  max_iter: int
  seed: int
  # It trains a classifier.
  costly: ClassVar[bool] = True

  def __post_init__(self):
    if self.width < 1 or self.max_iter < 1:
      raise ValueError('width and max_iter must be at least 1')
    if not 0 <= self.seed < 2**32:
      raise ValueError(f'seed={self.seed} must be from 0 to {2**32 - 1}')

  def empty(self) -> Labelled:
    return Labelled((), ())

  def update(self, state: Labelled, images: np.ndarray, labels: np.ndarray | None) -> Labelled:
    """Adds images float [N, H, W, C] of the classes `labels` int [N].

    Raises:
      UserError: there are no labels.
    """
    if labels is None:
      raise UserError(
        'the classification accuracy score (accuracy_score) needs a model that is told the label, '
        'and data with classes; use such an objective, e.g. cgan, or leave it out of '
        'config.evaluate.metrics'
      )
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    return Labelled((*state.images, flat), (*state.labels, labels))

  def compare(self, reference: Labelled, drawn: Labelled) -> float:
    """Share of `reference` that is classified rightly after training on `drawn`, in [0, 1].

    Raises:
      UserError: the drawn images are all of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    labels = np.concatenate(drawn.labels)
    if len(np.unique(labels)) < 2:
      raise UserError(
        'the classification accuracy score (accuracy_score) needs drawn images of two classes or '
        'more; raise config.evaluate.samples, or use data with more classes'
      )
    classifier = MLPClassifier(
      hidden_layer_sizes=(self.width,),
      max_iter=self.max_iter,
      random_state=self.seed,
      early_stopping=False,
    )
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', ConvergenceWarning)
      classifier.fit(np.concatenate(drawn.images), labels)
    return float(
      classifier.score(np.concatenate(reference.images), np.concatenate(reference.labels))
    )
