"""A data set drawn by a finished or running run, to train another model on."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from commands.render_samples import PRIOR, sample_chunks, told_classes
from data.tfds import dataset_writer
from engine import pictures
from engine.report import Counting
from engine.restore import check_seed, restore_run
from engine.session import Data
from errors import UserError

# Images, if the user does not say.
NUM = 5000


def synthesise(
  workdir: str,
  checkpoint: str,
  kind: str,
  num: int | None,
  conditions: Mapping[str, Any],
  seed: int,
  out: str,
) -> None:
  """Restores a run and writes its samples as a TFDS data set; image i is `sample_images`'s.

  Args:
    workdir: the run's folder.
    checkpoint: 'latest', 'best', or a step.
    kind: 'prior'; nothing else can be drawn for a data set.
    num: how many images; None for `NUM`.
    conditions: `label` where all images are to be of one class; else every class in turn.
    seed: of the draws.
    out: the data set's name, or FOLDER/NAME.

  Raises:
    UserError: no run, no such checkpoint, it draws no images, a bad number, or
      what `data.tfds.dataset_writer` refuses.
  """
  if kind != PRIOR:
    raise UserError(f'--kind={kind} is a picture and makes no data set; let --out end in .png')
  num = NUM if num is None else num
  if num < 1:
    raise UserError(f'--num={num} must be at least 1')
  check_seed(seed)
  target = dataset_writer.target(out)
  restored = restore_run(workdir, checkpoint)
  session, objective = restored.session, restored.session.objective
  if objective.sample is None or 'image' not in session.spec.features:
    raise UserError(f'{workdir} draws no images to make a data set of; name the run of a generator')
  classes = told_classes(objective)
  # Runs of older versions do not know the names.
  names = session.spec.class_names or [str(label) for label in range(classes)]
  chunks = sample_chunks(objective, restored.state, num, seed, conditions)
  made_by = {'run': Path(workdir).resolve(), 'step': restored.step, 'seed': seed, **conditions}
  with Counting('draw', num) as progress:
    folder = dataset_writer.write(
      target,
      _counted(_labelled(chunks, classes, conditions), progress),
      num,
      session.spec.features['image'][0],
      names if classes else (),
      'Drawn by sample.py: ' + ', '.join(f'{name} {value}' for name, value in made_by.items()),
    )
  print(f'{target.name}: {num:,} images, step {restored.step} of {workdir}: {folder}')
  if not session.data.classes:  # else no whole data set has the same classes to be tested on
    print(f'train on it: {_command(target, session.data, "cnn" if classes else "vae")}')


def _labelled(
  chunks: Iterator[np.ndarray], classes: int, conditions: Mapping[str, Any]
) -> Iterator[dict[str, np.ndarray]]:
  done = 0
  for images in chunks:
    chunk = {'image': pictures.to_uint8(images)}
    places = np.arange(done, done + len(images))
    if classes:
      given = 'label' in conditions
      chunk['label'] = np.full_like(places, conditions['label']) if given else places % classes
    done += len(images)
    yield chunk


def _counted(
  chunks: Iterator[dict[str, np.ndarray]], progress: Counting
) -> Iterator[dict[str, np.ndarray]]:
  done = 0
  for chunk in chunks:
    yield chunk
    done += len(chunk['image'])
    progress(done, {})


def _command(target: dataset_writer.Target, data: Data, config: str) -> str:
  """Trains on the data set, and tests on what the run itself was tested on."""
  options = {'test_name': data.test_name or data.name.split('+')[0]}
  if data.test_split != 'test':
    options['test_split'] = data.test_split
  if not target.searched:
    options['data_dir'] = str(target.root)
  flags = [f'--config.data.{option}={value}' for option, value in options.items()]
  return shlex.join(['python', 'train.py', f'--config=configs/{config}.py:{target.name}', *flags])
