"""Samples and pictures of a run as image files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import files
from data.transforms import OFF, prepare
from engine import pictures
from engine.restore import open_split
from errors import UserError
from objectives.base import Picture, numbered_keys, stream_key

if TYPE_CHECKING:
  from commands.sample_run import Opened

# Samples per device call, at most: bounds the memory whatever --num is.
CHUNK = 256
# Test examples that a picture is given at least, to judge a code by more than one image.
EXAMPLES = 500
# Bytes of all images in a file, at most, by its ending, and those of one value.
_MOST_BYTES = {'.png': 2**26, '.npz': 2**32}
_BYTES_OF_A_VALUE = {'.png': 1, '.npz': 4}


def render_samples(opened: Opened) -> None:
  """Writes samples of images to a .png (a grid) or an .npz (arrays).

  Raises:
    UserError: another ending, too many for a grid, or the file cannot be written.
  """
  request = opened.request
  num, out = request.num or 64, request.out or f'{request.workdir}/samples.png'
  _check_ending(out, 'or nothing, to be the name of a data set')
  _check_size(opened, out, num, _shape_of_a_sample(opened))
  files.prepare_out(out)
  images = np.concatenate([*sample_chunks(opened, num)])
  _write(opened, out, images, lambda images: pictures.enlarge(pictures.grid(images)))
  print(f'prior: {num:,} samples, step {opened.restored.step} of {request.workdir}: {out}')


def _shape_of_a_sample(opened: Opened) -> Sequence[int]:
  sampler = opened.restored.session.objective.sampler

  def sample(variables, key):
    numbers = jnp.arange(1)
    return sampler.sample(variables, numbered_keys(key, numbers), numbers, **opened.options)

  return jax.eval_shape(sample, opened.variables, jax.random.key(0)).shape[1:]


def sample_chunks(opened: Opened, num: int) -> Iterator[np.ndarray]:
  """Yields `num` samples in pieces of at most `CHUNK`; sample i is the same whatever `num` is."""
  session, size = opened.restored.session, min(num, CHUNK)
  sampler = session.objective.sampler
  key = stream_key(jax.random.key(opened.seed), 'sample')

  @functools.partial(jax.jit, compiler_options=session.determinism_options)
  def sample(variables, first):
    numbers = first + jnp.arange(size)
    return sampler.sample(variables, numbered_keys(key, numbers), numbers, **opened.options)

  for first in range(0, num, size):
    yield np.asarray(sample(opened.variables, jnp.int32(first)))[: num - first]


def render_picture(opened: Opened) -> None:
  """Writes a picture of the model, of the kind that is requested.

  Raises:
    UserError: another ending than .png and .npz, too large a picture, too few test examples, or
      --split where none are looked at.
  """
  request, restored = opened.request, opened.restored
  picture = restored.session.objective.pictures[request.kind]
  out = request.out or f'{request.workdir}/{request.kind}.png'
  _check_ending(out, f'for --kind={request.kind} makes no data set')
  rendered = render(opened, picture, request.num or picture.num, out)

  def sheet(images: np.ndarray) -> np.ndarray:
    if picture.captions is not None:
      return pictures.captioned(images, picture.captions.columns, rendered.rows)
    flat = images.reshape(-1, *images.shape[2:])
    return pictures.enlarge(pictures.grid(flat, images.shape[1]))

  _write(opened, out, rendered.images, sheet)
  what = f'{request.kind}: {rendered.num:,} {picture.count}'
  print(f'{what}, step {restored.step} of {request.workdir}: {out}')


class Rendered(NamedTuple):
  """A picture that is made.

  Attributes:
    images: float32 [rows, columns, H, W, C].
    num: how many of what the picture counts it shows: not more than there are.
    rows: the words of each row; empty for none.
  """

  images: np.ndarray
  num: int
  rows: Sequence[str]


def render(opened: Opened, picture: Picture, num: int, out: str) -> Rendered:
  """Renders a picture that is to be written to `out`.

  Raises:
    UserError: see `render_picture`.
  """
  key = stream_key(jax.random.key(opened.seed), 'picture')
  examples = _test_examples(opened, picture, num)
  if picture.examples:
    num = min(num, examples.number // picture.examples)

  describe = picture.captions.describe if picture.captions is not None else None

  @functools.partial(jax.jit, compiler_options=opened.restored.session.determinism_options)
  def rendered(variables, batch):
    keys = numbered_keys(key, jnp.arange(examples.number))
    given = variables, prepare(batch, key, OFF), keys, num
    return picture.render(*given), describe(*given) if describe is not None else {}

  shape = jax.eval_shape(rendered, opened.variables, examples.abstract)[0].shape
  _check_size(opened, out, math.prod(shape[:2]), shape[2:])
  files.prepare_out(out)
  images, described = jax.device_get(rendered(opened.variables, examples.read()))
  names, rows = opened.restored.session.spec.class_names, ()
  if picture.captions is not None and described:
    values = [{name: each[i] for name, each in described.items()} for i in range(len(images))]
    rows = tuple(picture.captions.row(each, names) for each in values)
  # The rows are what is counted, unless several of them share a row.
  return Rendered(images, num if picture.examples else images.shape[0], rows)


class _Examples(NamedTuple):
  """Test examples for a picture, not read yet.

  Attributes:
    number: N, how many.
    abstract: the batch [N, …] as shapes and types.
    read: returns the batch.
  """

  number: int
  abstract: Mapping[str, jax.ShapeDtypeStruct]
  read: Callable[[], Mapping[str, np.ndarray]]


def _test_examples(opened: Opened, picture: Picture, num: int) -> _Examples:
  """The test examples for `num` of what a picture counts; the seed picks them.

  Raises:
    UserError: there are too few, or --split names some and none are looked at.
  """
  request = opened.request
  if not picture.reads_examples:
    if request.split:
      raise UserError(
        f'--split={request.split} has no effect with --kind={request.kind}, which shows no test '
        'examples; leave it out'
      )
    return _Examples(1, {}, dict)
  source = open_split(opened.restored.session, request.split)
  number, least = min(len(source), max(EXAMPLES, picture.examples * num)), max(picture.examples, 1)
  if number < least:
    raise UserError(
      f'--kind={request.kind} needs {least} examples at least, and {source.spec.name} '
      f'{source.spec.split} has {number}; name a larger --split'
    )
  features = source.spec.features.items()
  abstract = {n: jax.ShapeDtypeStruct((number, *shape), dtype) for n, (shape, dtype) in features}
  chosen = np.random.default_rng(opened.seed).choice(len(source), number, replace=False)
  return _Examples(number, abstract, lambda: dict(source.read(chosen)))


def _check_ending(out: str, otherwise: str) -> None:
  if Path(out).suffix not in _MOST_BYTES:
    raise UserError(f'--out={out} must end in .png (a grid) or .npz (arrays), {otherwise}')


def _check_size(opened: Opened, out: str, number: int, shape: Sequence[int]) -> None:
  """Raises UserError, before any memory is spent, where so many images [H, W, C] are too many."""
  ending = Path(out).suffix
  most = _MOST_BYTES[ending] // (_BYTES_OF_A_VALUE[ending] * math.prod(shape))
  if number > most:
    elsewhere = {'.png': 'let --out end in .npz, or ', '.npz': ''}[ending]
    size = ' × '.join(map(str, shape))
    raise UserError(
      f'--num={opened.request.num} makes {number:,} images of {size}, and a {ending} holds '
      f'{most:,} of them at most; {elsewhere}give a smaller --num'
    )


def _write(
  opened: Opened, out: str, images: np.ndarray, sheet: Callable[[np.ndarray], np.ndarray]
) -> None:
  path = files.path(out)
  try:
    if path.suffix == '.png':
      pictures.write_png(path, sheet(images))
    else:
      step, seed = opened.restored.step, opened.seed
      files.write_npz(path, image=images, step=np.int64(step), seed=np.int64(seed))
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f'cannot write {out} ({reason}); choose another --out') from error
