"""Samples of a run as a data set, to train another model on."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import files
from commands.render_samples import sample_chunks
from data.own.options import DEFAULTS
from data.section import Data
from data.tfds import dataset_writer
from engine import pictures
from engine.report import Counting

if TYPE_CHECKING:
  from commands.sample_run import Opened

# Images where the user gives no number.
NUM = 5000


def export_dataset(opened: Opened) -> None:
  """Writes samples of images as a TFDS data set, with labels where they are conditioned on them.

  Raises:
    UserError: the data set exists, or cannot be written.
  """
  request, session = opened.request, opened.restored.session
  num = NUM if request.num is None else request.num
  target = dataset_writer.target(request.out)
  sampler = session.objective.sampler
  conditioned = sampler.labels(np.arange(1), **opened.options) is not None
  names = session.spec.class_names if conditioned else ()
  made_by = {
    'run': files.absolute(request.workdir),
    'step': opened.restored.step,
    'seed': opened.seed,
    **request.options,
  }
  with Counting('sample', num) as progress:
    folder = dataset_writer.write(
      target,
      _counted(_labelled(opened, num), progress),
      num,
      session.spec.features['image'][0],
      names,
      'Sampled by sample.py: ' + ', '.join(f'{name} {value}' for name, value in made_by.items()),
    )
  print(
    f'{target.name}: {num:,} images, step {opened.restored.step} of {request.workdir}: {folder}'
  )
  if not session.data.classes:  # else no whole data set has the same classes to be tested on
    config = 'cnn' if conditioned else 'vae'
    print(f'train on it: {_command(target, session.data, config)}')


def _labelled(opened: Opened, num: int) -> Iterator[dict[str, np.ndarray]]:
  done = 0
  for images in sample_chunks(opened, num):
    numbers = np.arange(done, done + len(images))
    labels = opened.restored.session.objective.sampler.labels(numbers, **opened.options)
    given = {} if labels is None else {'label': np.asarray(labels)}
    yield {'image': pictures.to_uint8(images), **given}
    done += len(images)


def _counted(
  chunks: Iterator[dict[str, np.ndarray]], progress: Counting
) -> Iterator[dict[str, np.ndarray]]:
  done = 0
  for chunk in chunks:
    yield chunk
    done += len(chunk['image'])
    progress(done, {})


def _command(target: dataset_writer.Target, data: Data, config: str) -> str:
  """The command that trains on the data set and tests on what the run itself was tested on."""
  options: dict[str, Any] = {'test_name': data.tested}
  if data.test_split != 'test':
    options['test_split'] = data.test_split
  # The test data set is read with the same options, if it is a folder of pictures.
  for name, value in dataclasses.asdict(data.own.image).items():
    if value != getattr(DEFAULTS.image, name):
      options[f'image.{name}'] = ','.join(map(str, value)) if name == 'size' else value
  if not target.searched:
    options['data_dir'] = str(target.root)
  flags = [f'--config.data.{option}={value}' for option, value in options.items()]
  return shlex.join(['python', 'train.py', f'--config=configs/{config}.py:{target.name}', *flags])
