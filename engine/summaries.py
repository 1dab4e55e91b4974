"""Summaries of devices, data, modules and options for the start of a run."""

from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data.spec import Spec
from engine.state import State


def devices(mesh: Mesh) -> str:
  """Returns how many devices of which kind there are, and the shape of their mesh."""
  device = mesh.devices.flat[0]
  shape = ' × '.join(f'{name} {size}' for name, size in mesh.shape.items())
  return f'{mesh.devices.size} × {device.device_kind} ({device.platform}), mesh {shape}'


def data(spec: Spec, resident: bool) -> str:
  """Returns the size and look of a split, and whether it lives on the devices."""
  shape = ' × '.join(map(str, spec.features['image'][0])) if 'image' in spec.features else ''
  if 'tokens' in spec.features:
    shape = f'of {spec.features["tokens"][0][0]} tokens'
  classes = f', {spec.num_classes} classes' if spec.num_classes else ''
  unread = f'{spec.left_out:,} that cannot be read'
  left_out = f' (without {unread}, config.data.corrupt=skip)' if spec.left_out else ''
  where = 'resident on the devices' if resident else 'streamed'
  return f'{spec.name} {spec.split}: {spec.n:,} examples {shape}{classes}, {where}{left_out}'


def modules(state: State, lanes: int = 1) -> str:
  """Returns the number of parameters of each module of one lane."""
  counts = {
    module: sum(leaf.size for leaf in jax.tree.leaves(tree))
    for module, tree in state.params.items()
  }
  each = f' in each of {lanes} lanes' if lanes > 1 else ''
  return ', '.join(f'{module} {count:,}' for module, count in counts.items()) + ' parameters' + each


def options(config: ConfigDict, prefix: str = '') -> dict[str, Any]:
  """Returns every option of a config by its place, e.g. 'train.steps'."""
  found: dict[str, Any] = {}
  for key, value in config.items():
    place = f'{prefix}{key}'
    found |= options(value, f'{place}.') if isinstance(value, ConfigDict) else {place: value}
  return found
