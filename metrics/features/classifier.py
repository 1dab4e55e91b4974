"""Features of a convolutional classifier that was trained by this project."""

import dataclasses
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

import files
from errors import UserError, nearest
from metrics.base import Extracted, FeatureExtractor
from metrics.features.checksums import read_checked
from models.cnn import CNN
from options import option

# The weights that come with this project.
FOLDER = Path(__file__).parent / 'weights'


@dataclasses.dataclass(frozen=True)
class Classifier(FeatureExtractor):
  """The last hidden layer of a convolutional classifier, 128 features, and its classes.

  The features are taken before the activation: a ReLU sets about half of them to 0, which is far
  from the Gaussian that a Fréchet distance assumes, and makes the covariance singular where a unit
  is 0 for every image.

  `weights` are two files that `python -m tools.export_features` wrote: NAME.npz with the parameters
  in float16, and NAME.json, which describes the network, how it was trained, and the checksum of
  the parameters.
  """

  weights: str = option(
    'Weights of a classifier: fmnist-cnn or mnist5k-cnn, or the path of a file *.npz that '
    '`python -m tools.export_features` wrote.'
  )

  def __post_init__(self):
    if self._file.suffix != '.npz' or '_' in self._file.stem:
      raise ValueError(f'weights={self.weights} must be a file *.npz whose name has no "_"')
    if not self._file.is_file():
      known = sorted(each.stem for each in FOLDER.glob('*.npz'))
      raise ValueError(
        f'weights={self.weights} does not exist{nearest(self.weights, known)}; there are: '
        f'{", ".join(known)}; others are written by `python -m tools.export_features`'
      )

  @property
  def label(self) -> str:
    return self._file.stem

  @functools.cached_property
  def description(self) -> Mapping[str, Any]:
    """The content of the JSON file beside the weights.

    Raises:
      UserError: it is missing or damaged.
    """
    place = self._file.with_suffix('.json')
    try:
      return _parsed(place.read_text())
    except (OSError, ValueError) as error:
      raise UserError(f'{place} cannot be read ({error}); {self._way_out}') from error

  @functools.cached_property
  def parameters(self) -> Any:
    content = read_checked(self._file, self.description['sha256'], self._way_out)
    try:
      with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        flat = {name: arrays[name].astype(np.float32) for name in arrays}
    except (ValueError, zipfile.BadZipFile) as error:
      raise UserError(f'{self._file} holds no arrays ({error}); {self._way_out}') from error
    return traverse_util.unflatten_dict(flat, sep='/')

  @property
  def checksum(self) -> str:
    """Of the parameters and of the network that they belong to."""
    parts = [self.description[key] for key in ('sha256', 'module', 'image_shape', 'classes')]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    height, width, channels = self.description['image_shape']
    if images.shape[1:] != (height, width, channels):
      found = ' × '.join(map(str, images.shape[1:]))
      raise ValueError(
        f'weights={self.weights} takes images of {height} × {width} × {channels}, as it was '
        f'trained on {self.description["data"]["name"]}, and these are {found}; choose another '
        'extractor, or train one on such images with configs/features.py'
      )
    module = self.description['module']
    network = CNN(**module, outputs=len(self.description['classes']))
    layer = f'hidden_{len(module["widths"]) - 1}'
    logits, found = network.apply(
      {'params': parameters},
      images,
      train=False,
      capture_intermediates=lambda each, _: each.name == layer,
      mutable=['intermediates'],
    )
    (features,) = found['intermediates'][layer]['__call__']
    return Extracted(features, jax.nn.softmax(logits))

  @property
  def _file(self) -> Path:
    """The file of the parameters."""
    is_path = '/' in self.weights or self.weights.endswith('.npz')
    return Path(self.weights).expanduser() if is_path else FOLDER / f'{self.weights}.npz'

  @property
  def _way_out(self) -> str:
    own = f'write it again with `python -m tools.export_features --out={self._file}`'
    return 'restore it with git' if self._file.parent == FOLDER else own


def _parsed(text: str) -> dict[str, Any]:
  """Returns what a JSON file of weights says.

  Raises:
    ValueError: it is no JSON, or lacks what the network is built from.
  """
  description = files.parse_json(text)
  needed = {'sha256': str, 'module': dict, 'image_shape': list, 'classes': list, 'data': dict}
  if not isinstance(description, dict):
    raise ValueError('it holds no JSON object')
  for key, kind in needed.items():
    if not isinstance(description.get(key), kind):
      raise ValueError(f'"{key}" is missing, or of another kind')
  return description
