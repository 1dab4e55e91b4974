"""Building an objective and its modules from a config and the description of the data."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data.spec import Spec
from data.text import tokenization
from engine.build import build, to_plain
from engine.module_errors import construction_error, missing_module, objective_errors
from engine.sharding import batch_sharding
from engine.train_options import PRECISIONS
from errors import UserError
from objectives.base import Objective


def build_objective(
  config: ConfigDict, spec: Spec, precision: str, mesh: Mesh | None = None
) -> Objective:
  """Builds the modules of a config and, with them, its objective.

  Modules and objectives that have the fields `image_shape`, `num_classes`, `vocabulary`,
  `specials`, `token_bytes`, `dtype`, `fused` (whether there are kernels that only a GPU has) or
  `batch_sharding` (of batches over the devices that parameters are split over, else None) get them
  from the data, from `config.train.precision`, from the devices and from the mesh.

  Raises:
    UserError: an unknown name or option, or a value that a module or the objective refuses.
  """
  provided = {
    'image_shape': tuple(spec.features['image'][0]) if 'image' in spec.features else None,
    'num_classes': spec.num_classes,
    'dtype': PRECISIONS[precision],
    'fused': jax.default_backend() == 'gpu',
    'batch_sharding': batch_sharding(mesh) if mesh and mesh.shape['fsdp'] > 1 else None,
    **_of_tokenizer(spec.tokenizer),
  }
  modules = {
    name: _module(module, f'config.modules.{name}', provided)
    for name, module in to_plain(config.modules).items()
  }
  section = to_plain(config.objective)
  with objective_errors(modules):
    objective: Objective = build(
      section, 'objectives', 'config.objective', {**provided, 'modules': modules}
    )
    moved = [name for player in objective.players for name in player.moves]
  for name in moved:
    if name not in modules:
      raise missing_module(name, modules)
  return objective


def _module(section: Any, where: str, provided: Mapping[str, Any]) -> nn.Module:
  try:
    module = build(section, 'models', where, provided)
  except (TypeError, ArithmeticError) as error:
    raise construction_error(error, where, section) from error
  if not isinstance(module, nn.Module):
    raise UserError(f'{where}.name={section["name"]} is no module; name another')
  return module


def _of_tokenizer(tokenizer: str) -> dict[str, Any]:
  """The fields of modules and objectives that follow from a tokenizer; none without one."""
  if not tokenizer:
    return {}
  known = tokenization.from_json(tokenizer)
  sizes = known.token_bytes()
  return {
    'vocabulary': known.size,
    'specials': dict(known.specials),
    'token_bytes': None if sizes is None else tuple(map(int, sizes)),
  }
