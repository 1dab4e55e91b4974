"""Writes pictures for the tests of data/own, and opens data sets."""

import numpy as np
import PIL.Image

from data import source
from data.own.options import Image, Jsonl, Own, Table


def write_picture(path, number, size=(6, 5), mode='RGB'):
  """Writes a picture of noise that depends on `number`; `size` is (width, height)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
  PIL.Image.fromarray(noise).convert(mode).save(path)


def write_classes(root, classes=('cat', 'dog'), each=30, first=0):
  for place, name in enumerate(classes):
    for i in range(each):
      write_picture(root / name / f'{i}.png', first + 1000 * place + i)


def opened(name, split='train', image=None, table=None, jsonl=None, columns=()):
  """Opens a split, with some options of the three sections."""
  own = Own(Image(**(image or {})), Table(**(table or {})), Jsonl(**(jsonl or {})))
  return source.open_source(name, split, '', columns=columns, own=own)
