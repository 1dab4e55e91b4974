"""Floating-point operations of training a transformer, and the peak rate of a device.

Model FLOPs utilisation (MFU) is the fraction of a device's peak rate that is spent on the
operations in the formula below, not counting any others that the program runs (Chowdhery et al.
2022, PaLM, appendix B). A token costs, forward and backward,

    6·N + 12·L·H·Q·T

for N parameters, L layers, H heads of size Q and T tokens in a row: a multiplication and its
addition are 2 operations, and the backward pass takes twice the forward pass. As in PaLM and in
nanoGPT's `estimate_mfu` a causal mask does not halve the second term, and recomputed activations
count once. N excludes parameters that are only looked up: positions, and the embedding unless it is
tied to the output.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from engine.planning.devices import known_peak

# Modules of `models/transformer.py` whose parameters are only looked up, never multiplied.
LOOKED_UP = ('positions', 'types')


def multiplied_parameters(params: Mapping[str, Any], tied: bool) -> int:
  """Returns N, the number of parameters of a transformer that a token is multiplied with.

  Args:
    params: parameters of `models.transformer.Transformer`, arrays or their shapes.
    tied: whether the output matrix is the embedding.
  """
  excluded = LOOKED_UP if tied else (*LOOKED_UP, 'embedding')
  multiplied = {name: part for name, part in params.items() if name not in excluded}
  return sum(leaf.size for leaf in jax.tree.leaves(multiplied))


def token_flops(parameters: int, layers: int, heads: int, head_size: int, length: int) -> int:
  """Returns the operations of one token in training, 6·N + 12·L·H·Q·T."""
  return 6 * parameters + 12 * layers * heads * head_size * length


def measured_peak(size: int = 2048, repeats: int = 10) -> float:
  """Measures operations per second by the fastest of several float32 products of square matrices.

  Args:
    size: rows and columns of the matrices.
    repeats: how many products are timed.
  """
  product = jax.jit(jnp.matmul)
  matrix = jax.random.normal(jax.random.key(0), (size, size))
  product(matrix, matrix).block_until_ready()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * size**3 / min(seconds)


def peak(device: jax.Device) -> float:
  """Returns the peak rate for MFU: a known one in bfloat16, or on a CPU a measured one in float32.

  Raises:
    UserError: the device is not a CPU and its peak is not known.
  """
  return measured_peak() if device.platform == 'cpu' else known_peak(device.device_kind)
