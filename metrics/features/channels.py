"""Features of every channel of an image by itself, for images that are stacks of gray ones."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from metrics.base import Extracted, FeatureExtractor
from metrics.features.classifier import Classifier
from options import option


@dataclasses.dataclass(frozen=True)
class Channels(FeatureExtractor):
  """A classifier of gray images, applied to each channel: the modes of StackedMNIST.

  Of C channels and K classes it gives C·128 features and Kᶜ probabilities: the products of those of
  the channels, of which the first channel is the most significant digit (Metz et al. 2017,
  section 3.3.1).
  """

  weights: str = option('Weights of a classifier of gray images, as of `classifier`.')

  def __post_init__(self):
    Classifier(self.weights)  # Refuses weights that do not exist.

  @functools.cached_property
  def _classifier(self) -> Classifier:
    return Classifier(self.weights)

  @property
  def label(self) -> str:
    return f'channels-{self._classifier.label}'

  @property
  def parameters(self) -> Any:
    return self._classifier.parameters

  @property
  def checksum(self) -> str:
    return self._classifier.checksum

  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    number, _, _, channels = images.shape
    classes = len(self._classifier.description['classes'])
    if classes**channels > _MOST_CLASSES:
      raise ValueError(
        f'weights={self.weights} has {classes} classes, and images of {channels} channels would '
        f'have {classes**channels:,}, more than {_MOST_CLASSES:,}; choose another extractor'
      )
    parts = [
      self._classifier.extract(parameters, images[..., channel : channel + 1])
      for channel in range(channels)
    ]
    features = jnp.concatenate([part.features for part in parts], axis=1)
    probabilities = jnp.ones((number, 1))
    for part in parts:
      joint = probabilities[:, :, None] * part.probabilities[:, None, :]
      probabilities = joint.reshape(number, math.prod(joint.shape[1:]))
    return Extracted(features, probabilities)


# As many are columns of a table of probabilities, one row per sample of a batch.
_MOST_CLASSES = 100_000
