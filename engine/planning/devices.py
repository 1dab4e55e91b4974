"""The table of devices that runs are planned for: peak, memory, bandwidths and power of each."""

from collections.abc import Mapping
from typing import NamedTuple

from errors import UserError, choose, nearest


class Device(NamedTuple):
  """One device as its vendor describes it.

  Attributes:
    kind: how the `device_kind` of such a jax device begins.
    half: peak operations a second in bfloat16, dense, with float32 accumulation.
    single: those of float32 arrays at jax's default precision of products: TF32 on NVIDIA's, one
      pass of bfloat16 on TPUs.
    memory: bytes; what vendors call GB is close to GiB.
    bandwidth: bytes a second of its memory.
    links: bytes a second that it can send to the other devices of its domain, over all its links.
    domain: devices that those links connect: a machine of GPUs, a slice of TPUs.
    network: bytes a second that it can send to other domains.
    watts: power of the device at most; 0 where its vendor does not publish it.
    topology: what jax calls its topologies, e.g. 'v5e' of 'v5e:4x4'; '' if it has none.
    axes: axes of the torus of such a topology.
    source: where the figures are from.
  """

  kind: str
  half: float
  single: float
  memory: float
  bandwidth: float
  links: float
  domain: int
  network: float
  watts: float
  source: str
  topology: str = ''
  axes: int = 0

  def peak(self, precision: str) -> float:
    """Peak operations a second of `config.train.precision`."""
    return self.single if precision == 'float32' else self.half


_GIB, _GB, _TB, _TERA = 2**30, 1e9, 1e12, 1e12
_NVIDIA = 'data sheet of NVIDIA, dense figures (half of those with sparsity); '
_GOOGLE = 'cloud.google.com/tpu/docs/'
# A card sends half of the figure that NVIDIA gives for NVLink, which counts both directions.
# Between machines each card of a DGX has one ConnectX-7 of 400 Gbit/s, of a DGX A100 one of 200. A
# TPU's interconnect is given for one direction and connects all chips of a slice; Google publishes
# no power.
DEVICES: Mapping[str, Device] = {
  'a100': Device(
    'NVIDIA A100', 312 * _TERA, 156 * _TERA, 80 * _GIB, 2039 * _GB, 300 * _GB, 8, 25 * _GB, 400,
    _NVIDIA + 'A100 80GB SXM, DGX A100',
  ),
  'h100': Device(
    'NVIDIA H100', 989 * _TERA, 494 * _TERA, 80 * _GIB, 3.35 * _TB, 450 * _GB, 8, 50 * _GB, 700,
    _NVIDIA + 'H100 SXM, DGX H100',
  ),
  'h100-nvl': Device(
    'NVIDIA H100 NVL', 835 * _TERA, 417 * _TERA, 94 * _GIB, 3.9 * _TB, 300 * _GB, 2, 50 * _GB, 400,
    _NVIDIA + 'H100 NVL',
  ),
  'h100-pcie': Device(
    'NVIDIA H100 PCIe', 756 * _TERA, 378 * _TERA, 80 * _GIB, 2 * _TB, 300 * _GB, 2, 50 * _GB, 350,
    _NVIDIA + 'H100 PCIe',
  ),
  'h200': Device(
    'NVIDIA H200', 989 * _TERA, 494 * _TERA, 141 * _GIB, 4.8 * _TB, 450 * _GB, 8, 50 * _GB, 700,
    _NVIDIA + 'H200 SXM, DGX H200',
  ),
  'b200': Device(
    'NVIDIA B200', 2250 * _TERA, 1125 * _TERA, 180 * _GIB, 8 * _TB, 900 * _GB, 8, 50 * _GB, 1000,
    _NVIDIA + 'HGX B200, DGX B200',
  ),
  'l4': Device(
    'NVIDIA L4', 121 * _TERA, 60 * _TERA, 24 * _GIB, 300 * _GB, 32 * _GB, 8, 12.5 * _GB, 72,
    _NVIDIA + 'L4; links are PCIe 4.0 × 16',
  ),
  'tpu-v4': Device(
    'TPU v4', 275 * _TERA, 275 * _TERA, 32 * _GIB, 1200 * _GB, 300 * _GB, 4096, 6.25 * _GB, 0,
    _GOOGLE + 'v4',
  ),
  'tpu-v5e': Device(
    'TPU v5 lite', 197 * _TERA, 197 * _TERA, 16 * _GIB, 819 * _GB, 200 * _GB, 256, 3.1 * _GB, 0,
    _GOOGLE + 'v5e: 1,600 Gbit/s of interconnect', 'v5e', 2,
  ),
  'tpu-v5p': Device(
    'TPU v5', 459 * _TERA, 459 * _TERA, 95 * _GIB, 2765 * _GB, 600 * _GB, 6144, 6.25 * _GB, 0,
    _GOOGLE + 'v5p: 4,800 Gbit/s of interconnect', 'v5p', 3,
  ),
  'tpu-v6e': Device(
    'TPU v6 lite', 918 * _TERA, 918 * _TERA, 32 * _GIB, 1600 * _GB, 400 * _GB, 256, 12.5 * _GB, 0,
    _GOOGLE + 'v6e: 3,200 Gbit/s of interconnect', 'v6e', 2,
  ),
}  # fmt: skip
# What a run can be planned for besides: counts and memory, and no times.
CPU = 'cpu'


def find_device(name: str) -> Device | None:
  """Returns the device that a user names; None for 'cpu', which has no figures.

  Raises:
    UserError: the table does not have it.
  """
  return choose({**DEVICES, CPU: None}, name, '--device')


def device_of_kind(kind: str) -> Device | None:
  """Returns the device whose `device_kind` jax gives; None if the table does not have it."""
  found = [device for device in DEVICES.values() if kind.startswith(device.kind)]
  return max(found, key=lambda device: len(device.kind), default=None)


def known_peak(kind: str) -> float:
  """Returns the peak bfloat16 operations a second of a device kind (`device.device_kind`).

  Raises:
    UserError: the table does not have the device.
  """
  device = device_of_kind(kind)
  if device is None:
    kinds = [each.kind for each in DEVICES.values()]
    raise UserError(
      f'the peak of a device "{kind}" is not known{nearest(kind, kinds)}; add it to DEVICES in '
      'engine/planning/devices.py, from its data sheet'
    )
  return device.half
