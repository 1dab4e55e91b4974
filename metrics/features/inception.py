"""Features of Inception-v3 as the Fréchet Inception distance (FID) is defined by them."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.folders import cache_dir
from errors import UserError
from metrics.base import Extracted, FeatureExtractor
from metrics.features.checksums import read_checked
from metrics.features.colours import colours
from metrics.features.folding import folded_convolution, linear
from metrics.features.torch_file import read_tensors
from models.inception import InceptionV3

# The file that pytorch-fid reads; the end of its name is the beginning of its SHA-256.
FILE = 'pt_inception-2015-12-05-6726825d.pth'
CHECKSUM = '6726825d'
_IMPORT = 'python -m tools.import_inception'
_SIZE = 299
# Of its batch normalisations.
_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class Inception(FeatureExtractor):
  """Inception-v3's 2,048 pooled features, and probabilities of its 1,008 classes.

  As in pytorch-fid, images have 256 levels, gray ones are repeated for three colours, and all are
  resized to 299 × 299 bilinearly, without antialiasing. The weights lie in the cache, where
  `python -m tools.import_inception` puts them.
  """

  @property
  def label(self) -> str:
    return 'inception'

  @functools.cached_property
  def parameters(self) -> Any:
    return read_parameters(self._content, str(weights_file()))

  @functools.cached_property
  def checksum(self) -> str:
    return hashlib.sha256(self._content).hexdigest()

  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    levels = jnp.floor(jnp.clip(images, 0, 1) * 255 + 0.5) / 255
    shape = (images.shape[0], _SIZE, _SIZE, images.shape[-1])
    resized = jax.image.resize(levels, shape, 'bilinear', antialias=False)
    features, logits = InceptionV3().apply(
      {'params': parameters}, colours(resized, 'name=inception')
    )
    return Extracted(features, jax.nn.softmax(logits))

  @property
  def _content(self) -> bytes:
    file = weights_file()
    if not file.is_file():
      raise UserError(
        f'the features inception need the weights {FILE}, which are not in the cache; fetch them '
        f'with {_IMPORT}, or {_IMPORT} --from=FILE where you have them'
      )
    return read_checked(file, CHECKSUM, f'fetch it again with {_IMPORT}')


def weights_file() -> Path:
  """Returns the place of the weights in the cache; the file need not exist."""
  return cache_dir() / 'features' / FILE


def read_parameters(content: bytes, file: str) -> dict[str, Any]:
  """Returns the parameters of `models.inception` from the bytes of a file.

  Raises:
    UserError: it holds others; begins with `file`.
  """
  try:
    return parameters_of(read_tensors(content))
  except (ValueError, KeyError) as error:
    raise UserError(
      f'{file} has no weights of Inception-v3 ({error}); fetch them again with {_IMPORT}'
    ) from error


def parameters_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns the parameters of `models.inception` from those of the PyTorch module.

  Args:
    tensors: the state dict of torchvision's `Inception3` with 1,008 classes and no auxiliary ones.
  """
  parameters: dict[str, Any] = {'fc': linear(tensors, 'fc')}
  for name in tensors:
    place, convolution, _ = name.partition('.conv.weight')
    if convolution:
      *outer, last = place.split('.')
      node = parameters
      for part in outer:
        node = node.setdefault(part, {})
      node[last] = {'conv': folded_convolution(tensors, f'{place}.conv', f'{place}.bn', _EPSILON)}
  return parameters
