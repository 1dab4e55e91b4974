"""Drawing pictures from a finished or running run."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.transforms import prepare
from engine import pictures
from engine.build import parameters
from engine.evaluation import augment_off
from engine.restore import Restored, check_seed, make_folder, open_split
from engine.session import Session
from engine.state import State, stream_key, variables_for_sampling
from errors import UserError, nearest
from objectives.base import Drawing, Objective

# Drawn per device call, at most: bounds the memory whatever --num is.
CHUNK = 256
# Draws from the model alone; every objective has it.
PRIOR = 'prior'
# Test examples that a drawing sees at least, to judge a code by more than one image.
EXAMPLES = 500


def draw(
  restored: Restored,
  workdir: str,
  kind: str,
  num: int | None,
  conditions: Mapping[str, Any],
  split: str,
  seed: int,
  out: str,
) -> None:
  """Writes pictures of a run to `out`, whose ending picks the form.

  Args:
    restored: the run.
    workdir: its folder, to be named.
    kind: 'prior', or one of the objective's drawings.
    num: how many of what the kind counts; None for its own default.
    conditions: what the samples are to be, e.g. `label`; for 'prior' only.
    split: where test images come from; '' for the one that training evaluated on.
    seed: of the draws, and of which test images are taken.
    out: a .png, or an .npz with the arrays.

  Raises:
    UserError: no such kind, an ending other than .png and .npz, a bad number.
  """
  ending = Path(out).suffix
  if ending not in ('.png', '.npz'):
    raise UserError(f'--out={out} must end in .png (a grid) or .npz (arrays), or name a data set')
  if num is not None and num < 1:
    raise UserError(f'--num={num} must be at least 1')
  check_seed(seed)
  objective, state, step = restored.session.objective, restored.state, restored.step
  kinds = [*([PRIOR] if objective.sample is not None else []), *objective.drawings]
  if kind not in kinds:
    raise UserError(
      f'this run draws no --kind={kind}{nearest(kind, kinds)}; it draws: '
      f'{", ".join(kinds) or "nothing; use evaluate.py"}'
    )
  if kind in objective.drawings:
    if conditions:
      raise UserError(f'--{next(iter(conditions))} goes with --kind={PRIOR}, not with {kind}')
    drawing = objective.drawings[kind]
    num = num or drawing.num
    images = draw_kind(restored.session, state, drawing, num, split, seed)
    columns, what = images.shape[1], drawing.count
    flat = images.reshape(-1, *images.shape[2:])
  else:
    num = num or 64
    images = flat = sample_images(objective, state, num, seed, conditions)
    columns, what = 0, 'samples'
  path = Path(out)
  make_folder(path)
  try:
    if ending == '.png':
      pictures.write_png(path, pictures.enlarge(pictures.grid(flat, columns)))
    else:
      write_npz(path, image=images, step=np.int64(step), seed=np.int64(seed))
  except OSError as error:
    raise UserError(f'cannot write {out} ({error.strerror}); choose another --out') from error
  print(f'{kind}: {num} {what}, step {step} of {workdir}: {out}')


def sample_images(
  objective: Objective, state: State, num: int, seed: int, conditions: Mapping[str, Any]
) -> np.ndarray:
  """Images float32 [num, H, W, C] in [0, 1]; the same for a seed whatever `num` is.

  Raises:
    UserError: the objective knows no such condition, or not its value.
  """
  return np.concatenate([*sample_chunks(objective, state, num, seed, conditions)])


def told_classes(objective: Objective) -> int:
  """How many classes the objective's `sample` can be asked for; 0 if it takes no label."""
  return objective.num_classes if 'label' in parameters(objective.sample) else 0


def sample_chunks(
  objective: Objective, state: State, num: int, seed: int, conditions: Mapping[str, Any]
) -> Iterator[np.ndarray]:
  """`sample_images` in pieces of at most `CHUNK` images, or one for each class where that is more.

  Where the objective's `sample` takes a label, image i is of class i modulo the number of classes.
  """
  for name in conditions:
    if name not in parameters(objective.sample):
      raise UserError(
        f'this model was trained without a {name}, so there is none to ask for; leave out --{name}'
      )
  variables = variables_for_sampling(state)
  # Every call begins with the first class anew, so it ends with the last one.
  classes = max(1, told_classes(objective))
  size = min(num, max(1, CHUNK // classes) * classes)
  sample = jax.jit(lambda variables, key: objective.sample(variables, key, size, **conditions))
  key = stream_key(jax.random.key(seed), 'sample')
  return (
    np.asarray(sample(variables, jax.random.fold_in(key, i)))[: num - start]
    for i, start in enumerate(range(0, num, size))
  )


def draw_kind(
  session: Session, state: State, drawing: Drawing, num: int, split: str, seed: int
) -> np.ndarray:
  """Images float32 [rows, columns, H, W, C] of one kind, from test examples that `seed` picks."""
  source = open_split(session, split)
  number = min(len(source), max(EXAMPLES, 2 * num))
  index = np.random.default_rng(seed).choice(len(source), number, replace=False)
  batch = {name: jnp.asarray(rows) for name, rows in source.read(index).items()}
  key = stream_key(jax.random.key(seed), 'draw')

  @jax.jit
  def drawn(variables, batch):
    ready = prepare(batch, key, augment_off(session.data))
    ready['position'] = jnp.arange(number)
    return drawing.draw(variables, ready, key, num)

  return np.asarray(drawn(variables_for_sampling(state), batch))


def write_npz(path: Path, **arrays: np.ndarray) -> None:
  """Writes through a second file and a rename."""
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  with open(part, 'wb') as handle:
    np.savez_compressed(handle, **arrays)
  part.replace(path)
