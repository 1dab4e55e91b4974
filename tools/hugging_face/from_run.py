"""Turns a run into a folder that transformers loads, where its module is a GPT-2 or a BERT."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

import files
from engine.restore import Restored, restore_run
from engine.sharding import path_name
from errors import UserError
from files import write_json
from models.transformer import Transformer, unstacked
from tools.hugging_face import tokenizer
from tools.hugging_face.folder import CONFIG, WEIGHTS
from tools.hugging_face.layout import FAMILIES, Family
from tools.hugging_face.new_folder import check_empty, new_folder


def export_run(workdir: str, checkpoint: str, out: str) -> None:
  """Writes `config.json`, `model.safetensors` and the tokenizer's files of a run to `out`.

  Averaged parameters are written where the run has averages.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', a step, or '' for the one that sample.py would take.
    out: the folder, new or empty.

  Raises:
    UserError: no such run or checkpoint, a module that is no GPT-2 and no BERT, or `out` holds
      something.
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
    write_json(part / CONFIG, {**config, **tokenizer.ids(text)})
    for name, content in contents.items():
      write_json(part / name, content)
    save_file(tensors, part / WEIGHTS, metadata={'format': 'pt'})
    # It was written for its owner alone.
    shutil.copymode(part / CONFIG, part / WEIGHTS)
  number = sum(leaf.size for leaf in jax.tree.leaves(restored.weights.params))
  print(
    f'written  {out}: the {config["architectures"][0]} of {number:,} parameters of {workdir}, step '
    f'{restored.step}'
  )


def _family_of(restored: Restored, workdir: str) -> tuple[Family, dict[str, Any]]:
  """What the run is, and the options of its module.

  Raises:
    UserError: it is no language model, or no transformer.
  """
  module = restored.session.objective.modules.get('model')
  if not isinstance(module, Transformer):
    name = restored.session.config.modules.get('model', {}).get('name', 'another')
    raise UserError(f'{workdir} has the module "{name}", and only a transformer can be exported')
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
  """{name: float32 array} of all tensors; zeros for biases and types that the module lacks.

  Raises:
    UserError: a parameter is there that the family has no place for.
  """
  params = jax.device_get(restored.variables()['model']['params'])
  if options['scan']:
    params = unstacked(params)
  found = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
  tensors: dict[str, np.ndarray] = {}
  for leaf in family.leaves(options):
    parameter = found[leaf.path] if leaf.path in found else np.zeros(leaf.shape, np.float32)
    arrays = leaf.unpack(parameter)
    tensors.update(zip(leaf.tensors, map(np.ascontiguousarray, arrays), strict=True))
  # Both names, for releases that read one of them.
  return tensors | {new: tensors[old] for new, old in family.other_names.items()}
