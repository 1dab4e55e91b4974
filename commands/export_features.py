"""Writes the weights of a classifier's run as files that `metrics.features.classifier` reads."""

import dataclasses
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

import files
from commands import cli, config_flags
from data.examples import Examples
from engine import run
from engine.build import to_plain
from engine.restore import Restored, open_split, restore_run
from engine.runtime import versions
from errors import UserError
from metrics.features.classifier import Classifier
from models.cnn import CNN

_BATCH = 500
# Where the config lies that such weights are trained with.
_CONFIG = 'configs/features.py'
# Options that change nothing of the last step's weights.
_WITHOUT_EFFECT = tuple(
  free for free in run.FREE if free not in ('train.steps', 'train.epochs', 'train.patience')
)


def export_features(workdir: str, checkpoint: str, out: str) -> None:
  """Writes `out`, the parameters as float16, and beside it the JSON that describes them.

  Args:
    workdir: the run's folder; of several lanes the first is written.
    checkpoint: 'latest', 'best' or a step.
    out: a file *.npz.

  Raises:
    UserError: the run is no convolutional classifier of images, or a file cannot be written.
  """
  target = Path(out).expanduser()
  if target.suffix != '.npz' or '_' in target.stem:
    raise UserError(
      f'--out={out} must be a file *.npz whose name, which figures are named after, has no "_"'
    )
  restored = restore_run(workdir, checkpoint)
  module = _module(restored, workdir)
  session, spec = restored.session, restored.session.spec
  testing = open_split(session, '')
  files.prepare_out(out)
  params = jax.device_get(restored.variables()['model']['params'])
  flat = {
    name: np.asarray(leaf, np.float16)
    for name, leaf in sorted(traverse_util.flatten_dict(params, sep='/').items())
  }
  beyond = [name for name, leaf in flat.items() if not np.isfinite(leaf).all()]
  if beyond:
    raise UserError(f'{beyond[0]} of {workdir} has numbers beyond those of float16')
  try:
    files.write_npz(target, **flat)
    description = {
      'sha256': hashlib.sha256(target.read_bytes()).hexdigest(),
      'module': module,
      'image_shape': [*spec.features['image'][0]],
      'classes': [*spec.class_names] or [str(number) for number in range(spec.num_classes)],
      'data': {'name': spec.name, 'split': spec.split, 'n': spec.n, 'identity': spec.identity},
      'train': _command(workdir),
      'export': shlex.join(
        [
          'python',
          '-m',
          'tools.export_features',
          f'--workdir=runs/features-{spec.name}',
          f'--out={out}',
        ]
      ),
      'seed': int(session.lanes.seeds[0]),
      'step': restored.step,
      'code': run.read_description(workdir).get('code'),
      'versions': versions(),
    }
    files.write_json(target.with_suffix('.json'), description)
    # Of the weights as they were written, by the code that will read them.
    tested = _accuracy(Classifier(str(target.resolve())), testing)
    files.write_json(target.with_suffix('.json'), {**description, 'tested': tested})
  except OSError as error:
    reason = files.why_not_written(target.parent, error)
    raise UserError(f'cannot write --out={out}: {reason}') from error
  print(
    f'written  {target} and {target.with_suffix(".json").name}: accuracy {tested["accuracy"]:.4f} '
    f'on {tested["n"]:,} examples of {spec.name} {tested["split"]}, step {restored.step} of '
    f'{workdir}'
  )


def _module(restored: Restored, workdir: str) -> dict[str, Any]:
  """The options of the run's network.

  Raises:
    UserError: it is no convolutional network with a hidden layer, or no classifier.
  """
  config = restored.session.config
  network = restored.session.objective.modules.get('model')
  if not isinstance(network, CNN) or not network.widths:
    names = ', '.join(each.name for each in config.modules.values())
    raise UserError(
      f'{workdir} has modules of {names}, and features are those of a "cnn" with hidden layers; '
      f'train {_CONFIG}'
    )
  if config.objective.name != 'classify' or network.outputs != restored.session.spec.num_classes:
    raise UserError(
      f'{workdir} has the objective "{config.objective.name}" with {network.outputs} outputs, and '
      f'features are those of a classifier with one output a class; train {_CONFIG}'
    )
  options = {
    field.name: getattr(network, field.name)
    for field in dataclasses.fields(network)
    if field.name not in ('parent', 'name', 'outputs', 'dtype')
  }
  return to_plain(options)


def _command(workdir: str) -> str | None:
  """The command that trains such a run again: the config by its name, and what differs from it.

  None where flags cannot say it, since the run's config lacks an option that the named one has.
  """
  config = run.read_config(workdir)
  path = f'{_CONFIG}:{config["data"]["name"]}'
  complete = cli.load(path)
  config_flags.complete_init_from(complete)
  named = json.loads(json.dumps(to_plain(complete)))
  flags = []
  for key in run.differences(named, config):
    if key.startswith(_WITHOUT_EFFECT):
      continue
    value: Any = config
    for part in key.split('.'):
      if part not in value:
        return None
      value = value[part]
    written = ','.join(map(str, value)) if isinstance(value, list) else str(value)
    flags.append(f'--config.{key}={written}')
  return shlex.join(['python', 'train.py', f'--config={path}', *flags])


def _accuracy(extractor: Classifier, split: Examples) -> dict[str, Any]:
  """The accuracy of the extractor's classes on a split."""
  extract, parameters = jax.jit(extractor.extract), extractor.parameters
  right = 0
  for start in range(0, len(split), _BATCH):
    rows = split.read(range(start, min(start + _BATCH, len(split))))
    found = extract(parameters, np.asarray(rows['image'], np.float32) / 255)
    right += int((np.argmax(found.probabilities, axis=-1) == rows['label']).sum())
  return {'split': split.spec.split, 'n': len(split), 'accuracy': right / len(split)}
