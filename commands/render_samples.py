"""Samples and pictures of a run as image files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

import files
from data.transforms import OFF, prepare
from engine import pictures
from engine.restore import make_folder, open_split
from errors import UserError
from objectives.base import numbered_keys, stream_key

if TYPE_CHECKING:
  from commands.sample_run import Opened

# Samples per device call, at most: bounds the memory whatever --num is.
CHUNK = 256
# Test examples that a picture is given at least, to judge a code by more than one image.
EXAMPLES = 500
# Images in a picture, at most: beyond it a grid is too large for a viewer and for memory.
MOST_IN_A_PICTURE = 10_000
_ENDINGS = ('.png', '.npz')


def render_samples(opened: Opened) -> None:
  """Writes samples of images to a .png (a grid) or an .npz (arrays).

  Raises:
    UserError: another ending, too many for a grid, or the file cannot be written.
  """
  request = opened.request
  num, out = request.num or 64, request.out or f'{request.workdir}/samples.png'
  _check_out(out, num)
  images = np.concatenate([*sample_chunks(opened, num)])
  _write(opened, out, images, pictures.grid)
  print(f'prior: {num} samples, step {opened.restored.step} of {request.workdir}: {out}')


def sample_chunks(opened: Opened, num: int) -> Iterator[np.ndarray]:
  """Yields `num` samples in pieces of at most `CHUNK`; sample i is the same whatever `num` is."""
  sampler, size = opened.restored.session.objective.sampler, min(num, CHUNK)
  key = stream_key(jax.random.key(opened.request.seed), 'sample')

  @jax.jit
  def sample(variables, first):
    numbers = first + jnp.arange(size)
    return sampler.sample(variables, numbered_keys(key, numbers), numbers, **opened.options)

  for first in range(0, num, size):
    yield np.asarray(sample(opened.variables, jnp.int32(first)))[: num - first]


def render_picture(opened: Opened) -> None:
  """Writes a picture of the model, of the kind that is requested.

  Raises:
    UserError: another ending than .png and .npz, too large a picture, or too few test examples.
  """
  request, restored = opened.request, opened.restored
  picture = restored.session.objective.pictures[request.kind]
  num, out = request.num or picture.num, request.out or f'{request.workdir}/{request.kind}.png'
  _check_out(out, num)
  images = render(opened, num)
  flat = images.reshape(-1, *images.shape[2:])
  if not len(flat):
    raise UserError(
      f'--split={request.split or "test"} has too few examples for --kind={request.kind}, which '
      f'counts {picture.count}; name a larger split'
    )
  _write(opened, out, images, lambda images: pictures.grid(flat, images.shape[1]))
  rows, columns = images.shape[:2]
  print(
    f'{request.kind}: {rows} × {columns} images ({picture.count}, {num} requested), step '
    f'{restored.step} of {request.workdir}: {out}'
  )


def render(opened: Opened, num: int) -> np.ndarray:
  """Returns images float32 [rows, columns, H, W, C] of the requested kind of picture.

  The seed picks the test examples, which are read at least `EXAMPLES` at a time where there are so
  many.
  """
  request, session = opened.request, opened.restored.session
  picture = session.objective.pictures[request.kind]
  source = open_split(session, request.split)
  number = min(len(source), max(EXAMPLES, 2 * num))
  index = np.random.default_rng(request.seed).choice(len(source), number, replace=False)
  batch = {name: jnp.asarray(rows) for name, rows in source.read(index).items()}
  key = stream_key(jax.random.key(request.seed), 'picture')

  @jax.jit
  def rendered(variables, batch):
    keys = numbered_keys(key, jnp.arange(number))
    return picture.render(variables, prepare(batch, key, OFF), keys, num)

  return np.asarray(rendered(opened.variables, batch))


def _check_out(out: str, num: int) -> None:
  ending = Path(out).suffix
  if ending not in _ENDINGS:
    raise UserError(f'--out={out} must end in .png (a grid) or .npz (arrays), or name a data set')
  if ending == '.png' and num > MOST_IN_A_PICTURE:
    raise UserError(
      f'--num={num} is too much for one picture, which holds {MOST_IN_A_PICTURE:,} at most; let '
      '--out end in .npz'
    )
  make_folder(out)


def _write(opened: Opened, out: str, images: np.ndarray, grid) -> None:
  path = files.path(out)
  try:
    if path.suffix == '.png':
      pictures.write_png(path, pictures.enlarge(grid(images)))
    else:
      step, seed = opened.restored.step, opened.request.seed
      files.write_npz(path, image=images, step=np.int64(step), seed=np.int64(seed))
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f'cannot write {out} ({reason}); choose another --out') from error
