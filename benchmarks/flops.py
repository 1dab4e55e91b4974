"""Floating-point operations of a transformer's training, and how many a device could do.

Model FLOPs utilisation (MFU) is the share of a device's peak that the operations of the model's own
formula take, whatever the program does beside them (Chowdhery et al. 2022, PaLM, appendix B). A
token costs, forward and backward,

    6·N + 12·L·H·Q·T

for N parameters, L layers, H heads of size Q and T tokens that see each other: a multiplication and
its addition are 2 operations, and the backward pass takes twice the forward pass. As in PaLM and in
nanoGPT's `estimate_mfu` a causal mask does not halve the second term and recomputed activations
count once. N leaves out tables that are only looked up: positions, and the embedding unless the
logits are made with it.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from errors import UserError, nearest

# Tables whose rows a token picks, by the names in `models/transformer.py`; it multiplies none.
LOOKED_UP = ('positions', 'types')

# Most bfloat16 operations a second, dense (without structured sparsity), float32 accumulation, by
# how the name of a jax device begins. Data sheets of NVIDIA (a sheet that gives the sparse figure:
# half of it) and, for TPUs, the system pages of cloud.google.com/tpu/docs.
PEAKS = {
  'NVIDIA A100': 312e12,
  'NVIDIA H100': 989e12,
  'NVIDIA H100 NVL': 835e12,
  'NVIDIA H100 PCIe': 756e12,
  'NVIDIA H200': 989e12,
  'NVIDIA L4': 121e12,
  'TPU v4': 275e12,
  'TPU v5': 459e12,  # v5p
  'TPU v5 lite': 197e12,  # v5e
  'TPU v6 lite': 918e12,  # v6e, Trillium
}


def multiplied_parameters(params: Mapping[str, Any], tied: bool) -> int:
  """N: the parameters of a transformer that a token is multiplied with.

  Args:
    params: those of `models.transformer.Transformer`, arrays or their shapes.
    tied: whether logits are made with the embedding.
  """
  left_out = LOOKED_UP if tied else (*LOOKED_UP, 'embedding')
  kept = {name: part for name, part in params.items() if name not in left_out}
  return sum(leaf.size for leaf in jax.tree.leaves(kept))


def token_flops(parameters: int, layers: int, heads: int, head_size: int, length: int) -> int:
  """Operations of one token in training, 6·N + 12·L·H·Q·T."""
  return 6 * parameters + 12 * layers * heads * head_size * length


def known_peak(kind: str) -> float:
  """Operations per second that a device of this kind (`device.device_kind`) could do in bfloat16.

  Raises:
    UserError: its figure is not among `PEAKS`.
  """
  names = [name for name in PEAKS if kind.startswith(name)]
  if not names:
    raise UserError(
      f'the peak of a device "{kind}" is not known{nearest(kind, PEAKS)}; add it to PEAKS in '
      'benchmarks/flops.py, from its data sheet'
    )
  return PEAKS[max(names, key=len)]


def measured_peak(size: int = 2048, repeats: int = 10) -> float:
  """Operations per second of the fastest of `repeats` float32 products of size × size matrices."""
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
  """The peak that MFU is a share of: known in bfloat16, or measured in float32 on a CPU.

  Raises:
    UserError: the device is no CPU and its figure is not known.
  """
  return measured_peak() if device.platform == 'cpu' else known_peak(device.device_kind)
