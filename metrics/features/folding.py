"""Parameters of PyTorch's layers as those of ours, batch normalisation folded into them."""

from collections.abc import Mapping

import numpy as np


def folded_convolution(
  tensors: Mapping[str, np.ndarray], convolution: str, norm: str, epsilon: float
) -> dict[str, np.ndarray]:
  """Folds a batch normalisation with fixed statistics into the convolution before it.

  Args:
    tensors: of a state dict, by name.
    convolution: prefix of the convolution's name; its weight is [O, I, h, w], and it has no bias.
    norm: prefix of the normalisation's.
    epsilon: added to the variance.

  Returns:
    `kernel` [h, w, I, O] and `bias` [O], float32.
  """
  weight, scale, shift, mean, variance = (
    tensors[name].astype(np.float64)
    for name in (
      f'{convolution}.weight', f'{norm}.weight', f'{norm}.bias', f'{norm}.running_mean',
      f'{norm}.running_var',
    )
  )  # fmt: skip
  factor = scale / np.sqrt(variance + epsilon)
  return {
    'kernel': (weight.transpose(2, 3, 1, 0) * factor).astype(np.float32),
    'bias': (shift - mean * factor).astype(np.float32),
  }


def linear(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
  """Returns `kernel` [I, O] and `bias` [O] of a linear layer."""
  return {'kernel': tensors[f'{name}.weight'].T.copy(), 'bias': tensors[f'{name}.bias']}
