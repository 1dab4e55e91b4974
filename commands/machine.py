"""The machine that figures were computed on: devices, processor, threads, flags and versions."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import threadpoolctl
from jax.sharding import Mesh

from engine import runtime, summaries

# The keys of `machine`. Where all are equal, the same figure has the same bits.
KEYS = ('versions', 'devices', 'processor', 'threads', 'xla_flags')


def machine(mesh: Mesh) -> dict[str, Any]:
  """Returns the versions, devices, processor, threads and compiler flags of this process."""
  # Statistics of samples are computed by SciPy, classifiers of samples trained by scikit-learn.
  libraries = {name: importlib.metadata.version(name) for name in ('scipy', 'scikit-learn')}
  return {
    'versions': {**runtime.versions(), **libraries},
    'devices': summaries.devices(mesh),
    'processor': _processor(),
    'threads': _threads(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
  """Returns in which of `KEYS` two results of `machine` differ, e.g. 'jax 0.10.1 → 0.10.2'."""
  found = []
  for key in KEYS:
    before, after = one.get(key), other.get(key)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      names = dict.fromkeys([*before, *after])
      changed = [name for name in names if before.get(name) != after.get(name)]
      found += [f'{name} {before.get(name)} → {after.get(name)}' for name in changed]
    elif before != after:
      found.append(f'{key} {before or "none"} → {after or "none"}')
  return found


def _processor() -> str:
  """The model of the processor and the number of cores this process may use, e.g. '…, 2 cores'."""
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  model = models[0] if models else platform.processor() or platform.machine()
  # `taskset` and containers leave a process fewer cores than there are.
  usable = (
    os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(os.cpu_count() or 1)
  )
  return f'{model}, {len(usable)} cores'


def _threads() -> int:
  """The threads of NumPy's and SciPy's products, whose number changes how sums are rounded."""
  found = threadpoolctl.threadpool_info()
  return max((each['num_threads'] for each in found if each['user_api'] == 'blas'), default=1)
