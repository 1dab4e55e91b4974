"""Reads IDX files, the format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist)."""

import gzip
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image

_UNSIGNED_BYTE = 8


def read(path: pathlib.Path) -> np.ndarray:
  """Reads the uint8 array of a gzipped IDX file, with the shape its header states."""
  raw = gzip.decompress(path.read_bytes())
  zeros, kind, rank = struct.unpack('>HBB', raw[:4])
  if zeros or kind != _UNSIGNED_BYTE:
    raise ValueError(f'{path} is not an IDX file of unsigned bytes')
  shape = struct.unpack(f'>{rank}I', raw[4 : 4 + 4 * rank])
  return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def examples(images: pathlib.Path, labels: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (key, example) with keys 0, 1, …, which order the examples as in TFDS's own set."""
  for key, (image, label) in enumerate(zip(read(images), read(labels), strict=True)):
    yield key, {'image': PIL.Image.fromarray(image), 'label': int(label)}
