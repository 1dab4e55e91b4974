"""Exports a run, whose module must be a GPT-2 or a BERT, to a folder that transformers loads."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

import files
from data.text.hugging_face import GENERATION
from engine.restore import Restored, restore_run
from engine.sharding import path_name
from errors import UserError
from files import write_json
from models.transformer import Transformer, unstacked
from tools.hugging_face import tokenizer
from tools.hugging_face.folder import CONFIG, WEIGHTS, check_finite
from tools.hugging_face.layout import FAMILIES, Family
from tools.hugging_face.new_folder import check_empty, new_folder


def export_run(workdir: str, checkpoint: str, out: str) -> None:
  """Writes the configs, `model.safetensors` and the tokenizer's files of a run to `out`.

  If the run has averages, the averaged parameters are written.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', a step, or '' for the default of sample.py.
    out: the folder to write to, new or empty.

  Raises:
    UserError: the run or checkpoint does not exist, the module is neither a GPT-2 nor a BERT, or
      `out` is not empty.
  """
  out = str(files.path(out))
  check_empty(Path(out), '--out')
  restored = restore_run(workdir, checkpoint)
  family, options = _family_of(restored, workdir)
  config = family.config(options)
  tensors = make_tensors(family, options, restored)
  text = restored.session.spec.tokenizer
  contents = tokenizer.files(text, options['context'])
  with new_folder(Path(out), '--out') as part:
    ids = tokenizer.ids(text)
    write_json(part / CONFIG, {**config, **ids})
    if options['causal']:
      given = {name: value for name, value in ids.items() if value is not None}
      write_json(part / GENERATION, given)
    for name, content in contents.items():
      write_json(part / name, content)
    save_file(tensors, part / WEIGHTS, metadata={'format': 'pt'})
    # save_file makes a file that only its owner can read.
    shutil.copymode(part / CONFIG, part / WEIGHTS)
  number = sum(leaf.size for leaf in jax.tree.leaves(restored.weights.params))
  print(
    f'written  {out}: a {config["architectures"][0]} of {number:,} parameters, from step '
    f'{restored.step} of {workdir}'
  )


def _family_of(restored: Restored, workdir: str) -> tuple[Family, dict[str, Any]]:
  """Returns the family of the run's module, and the module's options.

  Raises:
    UserError: the run is not of a language model, or not of a transformer.
  """
  module = restored.session.objective.modules.get('model')
  if not isinstance(module, Transformer):
    names = ', '.join(each.name for each in restored.session.config.modules.values())
    raise UserError(
      f'{workdir} has modules of {names}, and only a language model of the module "transformer" '
      'can be exported'
    )
  if module.pool != 'none' or module.outputs != module.vocabulary:
    name = restored.session.config.objective.name
    raise UserError(
      f'{workdir} has the objective "{name}", and only language models (causal_lm, masked_lm) can '
      'be exported; export the run that it started from'
    )
  options = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
  return FAMILIES['gpt2' if module.causal else 'bert'], options


def make_tensors(
  family: Family, options: Mapping[str, Any], restored: Restored
) -> dict[str, np.ndarray]:
  """Returns {name: float32 array} of all tensors; biases and types that the module lacks are 0.

  Raises:
    UserError: the module has a parameter that the family does not have, or one that is not finite.
  """
  params = jax.device_get(restored.variables()['model']['params'])
  if options['scan']:
    params = unstacked(params)
  by_path = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
  tensors: dict[str, np.ndarray] = {}
  for leaf in family.leaves(options):
    parameter = by_path[leaf.path] if leaf.path in by_path else np.zeros(leaf.shape, np.float32)
    arrays = leaf.unpack(parameter)
    for name, array in zip(leaf.tensors, map(np.ascontiguousarray, arrays), strict=True):
      check_finite(array, f'the tensor {name}')
      tensors[name] = array
  # Tensors with two names are written under both, since releases of transformers read either.
  return tensors | {new: tensors[old] for new, old in family.other_names.items()}
