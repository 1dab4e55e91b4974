"""The training images that are nearest to samples of a run, by pixels: a copier shows itself."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from commands.render_samples import sample_chunks
from commands.sample_run import Opened, Request
from data.examples import Examples, blocks
from data.section import open_training
from engine import pictures
from engine.report import Counting
from engine.restore import restore_run
from options import complete

# Training images that are compared at a time, which bounds the memory.
_BLOCK = 1024


class Neighbours(NamedTuple):
  """The nearest images of some samples, the nearest first.

  Attributes:
    images: float32 [K, N, H, W, C] in [0, 1].
    distances: float64 [K, N], root of the mean squared difference of the pixels.
    indices: int64 [K, N], the images' places in their split.
  """

  images: np.ndarray
  distances: np.ndarray
  indices: np.ndarray


class Compared(NamedTuple):
  """Samples of a run beside training images.

  Attributes:
    samples: float32 [N, H, W, C] in [0, 1].
    nearest: their neighbours in the training split.
    split: the training split, in words.
    step: of the checkpoint.
  """

  samples: np.ndarray
  nearest: Neighbours
  split: str
  step: int

  @property
  def picture(self) -> np.ndarray:
    """A column for each sample: the sample, and below it its neighbours; uint8 [H, W, C]."""
    images = np.concatenate([self.samples[None], self.nearest.images])
    ranks = ['nearest', *(f'{rank}.' for rank in range(2, len(images)))]
    return pictures.captioned(images, (), ['sample', *ranks])


def compare_with_train(
  workdir: str, checkpoint: str = '', lane: int = 0, number: int = 10, neighbours: int = 3
) -> Compared | None:
  """Samples from a run and finds the nearest images that it was trained on.

  Args:
    workdir: the run's folder.
    checkpoint: as in `engine.restore.restore_run`.
    lane: of the run.
    number: of samples.
    neighbours: of each sample; fewer where there are fewer training images.

  Returns:
    None for a run that does not sample images.

  Raises:
    UserError: the run, the checkpoint or the training data cannot be read.
  """
  restored = restore_run(workdir, checkpoint, lane)
  session = restored.session
  sampler = session.objective.sampler
  if sampler is None or sampler.feature != 'image':
    return None
  examples = open_training(session.data)
  options = complete(sampler.options, {}, f'the sampler of {workdir}')
  opened = Opened(Request(workdir), restored, restored.variables(lane), options)
  samples = np.concatenate([*sample_chunks(opened, number)])
  with Counting(f'compare {workdir} with its training images', len(examples)) as progress:
    found = nearest(samples, _read(examples, progress), neighbours)
  spec = examples.spec
  return Compared(samples, found, f'{spec.name} {spec.split}, {spec.n:,} images', restored.step)


def _read(examples: Examples, progress: Counting) -> Iterable[np.ndarray]:
  """Yields all images float32 [B, H, W, C] in [0, 1], block after block."""
  for block in blocks(len(examples), _BLOCK):
    yield examples.read(block)['image'].astype(np.float32) / 255
    progress(block.stop, {})


def nearest(samples: np.ndarray, images: Iterable[np.ndarray], neighbours: int) -> Neighbours:
  """Returns the images with the smallest squared difference to each sample.

  Args:
    samples: float32 [N, H, W, C].
    images: blocks float32 [B, H, W, C], at least one image in all.
    neighbours: K; fewer are returned where there are fewer images.
  """
  kept = [(np.empty(0), np.empty(0, np.int64), samples[:0])] * len(samples)
  start = 0
  for block in images:
    numbers = start + np.arange(len(block))
    start += len(block)
    for at, sample in enumerate(samples):
      # The difference itself: by norms and products the distance of a copy would not be 0.
      distances = np.mean((block - sample) ** 2, axis=(1, 2, 3), dtype=np.float64)
      known, places, found = kept[at]
      joined = np.concatenate([known, distances])
      order = np.argsort(joined, kind='stable')[:neighbours]
      every, all_images = np.concatenate([places, numbers]), np.concatenate([found, block])
      kept[at] = joined[order], every[order], all_images[order]
  distances, places, found = (np.stack(each, axis=1) for each in zip(*kept))
  return Neighbours(found, np.sqrt(distances), places)
