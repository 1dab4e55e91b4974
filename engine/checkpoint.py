"""Saving and restoring a run: Orbax behind one class.

A checkpoint is a folder `checkpoints/STEP` of three items: `variables` (parameters, mutable
collections, averages) and `training` (optimizers, key, step) in Orbax's standard format, no pickle,
and the JSON `meta` that describes them: `used`, seeds, data, config, versions, the figure that
ranks it, a fingerprint of every leaf, which is compared on restore since Orbax does not notice a
flipped bit, and a checksum of itself. What comes after training reads `variables` alone.
"""

import contextlib
import dataclasses
import errno
import itertools
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import files
from engine import distributed
from engine.checksum import is_whole, with_sum
from engine.disk_refusals import FORBIDDEN, why_refused
from engine.memory import is_out_of_memory
from engine.save_barrier import SaveBarrier
from engine.sharding import path_name
from engine.state import State, Weights, weights
from errors import UserError
from options import option

VARIABLES, TRAINING, META = 'variables', 'training', 'meta'


@dataclasses.dataclass(frozen=True)
class Kept:
  """The options of `config.checkpoint`."""

  every: int = option('Steps between checkpoints.', low=1)
  keep: int = option('How many of the newest stay.', low=1)
  best: str = option(
    "The figure whose best checkpoint stays too, as `EVALUATOR/METRIC`; '' for none."
  )
  best_mode: str = option(
    'Whether the smallest or the largest figure is the best.', choices=('min', 'max')
  )


class Refusal(NamedTuple):
  """A save that the disk refused.

  Attributes:
    step: of the state.
    reason: why, and the way out, as the end of a sentence.
    whole: whether the checkpoint is there all the same, and only older ones could not be deleted.
  """

  step: int
  reason: str
  whole: bool


class Checkpoints:
  """The checkpoints of one run.

  Where the disk refuses a save (it is full, or can only be read), the remains are removed, earlier
  checkpoints stay, and the next save is tried as if nothing had happened; `refusals` tells of it.
  With several processes, all of them call `save`, `look` and `wait` alike, and hear the same.

  Args:
    workdir: the run's folder.
    every: as in `Kept`; read by the loop.
    keep: as in `Kept`.
    best: likewise; the whole name of the figure.
    best_mode: likewise.
    lanes: trainings side by side; a checkpoint stays while it is the best of any of them.
    read_only: whether damaged checkpoints are left where they are.

  Attributes:
    set_aside: the steps of the damaged checkpoints that were moved away.
  """

  def __init__(
    self,
    workdir: str,
    *,
    every: int,
    keep: int,
    best: str,
    best_mode: str,
    lanes: int = 1,
    read_only: bool = False,
  ):
    self.every = every
    self.folder = files.absolute(workdir) / 'checkpoints'
    self.best = best
    self._keep, self._mode, self._lanes = keep, best_mode, lanes
    self._read_only = read_only
    self._manager_or_none = None
    self._ranks_or_none: dict[int, dict[str, float]] | None = None
    self._saved = -1  # the step of the newest save that was begun and not refused
    self._writing: int | None = None  # the step that is being written
    self._refusals: list[Refusal] = []
    self._barrier = SaveBarrier()
    self.set_aside: list[int] = []

  def steps(self) -> list[int]:
    """Returns the steps of the finished checkpoints, oldest first."""
    if not self.folder.is_dir():
      return []
    import orbax.checkpoint as ocp

    return sorted(ocp.utils.checkpoint_steps(self.folder))

  def save(
    self,
    step: int,
    state: State,
    meta: Mapping[str, Any],
    figures: Sequence[Mapping[str, float]],
  ) -> None:
    """Starts writing in the background; the state may be donated right after.

    A save that the disk refuses raises nothing: see `refusals`.

    Args:
      step: of the state.
      state: of all lanes.
      meta: what else is to be known of it.
      figures: of each lane, from an evaluation at this step; empty without one.
    """
    self.wait()
    if step == self._saved:
      return
    reason = distributed.first_complaint(f'room for checkpoint {step}', self._why_no_room())
    if not reason:
      items = _items(state)
      fingerprints = {name: fingerprint(item) for name, item in items.items()}
      ranks = self._ranks(figures)
      meta = with_sum({**meta, 'step': step, 'best': ranks, 'fingerprint': fingerprints})
      self._known_ranks()[step] = ranks
      reason = self._begin(step, items, meta)
    if reason:
      self._give_up(step, reason)
    else:
      self._saved = self._writing = step

  def _begin(self, step: int, items: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """Has Orbax start to write a checkpoint; returns why the disk refuses it, '' if it does not."""
    import orbax.checkpoint as ocp

    self._barrier.begin()
    args = ocp.args.Composite(
      **{name: ocp.args.StandardSave(item) for name, item in items.items()},
      **{META: ocp.args.JsonSave(meta)},
    )
    try:
      self._manager().save(step, args=args, force=True)
    except Exception as error:
      reason = why_refused(error, self.folder.parent)
      if not reason:
        raise
      if jax.process_count() > 1:  # the others are waiting for this process inside of Orbax
        raise UserError(self._sentence(reason)) from error
      return reason
    return ''

  def _why_no_room(self) -> str:
    """Why the disk would refuse a checkpoint, by a small trial; '' if it would not, or may not.

    Orbax makes its folders in the background, and where that fails, waits for them for minutes.
    """
    if not files.is_local(self.folder):
      return ''
    try:
      files.make_folder(self.folder)
      with tempfile.TemporaryDirectory(prefix=_TRIAL, dir=self.folder) as trial:
        (files.path(trial) / 'room').write_bytes(bytes(_LEAST_ROOM))
    except OSError as error:
      return why_refused(error, self.folder.parent) or files.why_not_written(self.folder, error)
    return ''

  def look(self) -> None:
    """Hears how the last save ended if it has ended, without waiting for it."""
    if self._writing is None:
      return
    ended = not self._manager().is_saving_in_progress()
    if all(distributed.of_all(f'checkpoint {self._writing} has ended', ended)):
      self.wait()

  def wait(self) -> None:
    """Returns when the last save is on disk, or is refused; see `refusals`."""
    if self._writing is None:
      return
    step, self._writing = self._writing, None
    failure, reason = None, ''
    try:
      self._manager().wait_until_finished()
    except Exception as error:
      failure, reason = error, why_refused(error, self.folder.parent)
    # The disk may refuse the part of one process alone; the others then have given up theirs.
    refused = distributed.first_complaint(f'checkpoint {step}', reason)
    if refused:
      self._give_up(step, refused)
    elif failure is not None:
      raise failure

  def _give_up(self, step: int, reason: str) -> None:
    """Notes a refused save and removes its remains, so that another one may be tried."""
    if self._manager_or_none is not None:
      with contextlib.suppress(Exception):  # what failed is known
        self._manager_or_none.close()
      self._manager_or_none = None
    if jax.process_index() == 0 and files.is_local(self.folder):
      for path in files.entries(self.folder):
        if _UNFINISHED in path.name or path.name.startswith(_TRIAL):
          shutil.rmtree(path, ignore_errors=True)
    whole = distributed.of_first(f'checkpoint {step} is whole', step in self.steps())
    if not whole:
      self._saved = -1
      self._known_ranks().pop(step, None)
    self._refusals.append(Refusal(step, reason, whole))

  def refusals(self) -> list[Refusal]:
    """Returns the saves that were refused since this was last asked; the same in all processes."""
    found, self._refusals = self._refusals, []
    return found

  def is_saved(self, step: int) -> bool:
    """Whether the newest save is of `step` and was not refused; to be asked after `wait`."""
    return self._saved == step

  def _sentence(self, reason: str) -> str:
    """Says that something could not be written, and where the same command goes on."""
    steps = self.steps()
    return (
      f'cannot write to {self.folder.parent}: {reason}; the same command then goes on from '
      f'{f"step {steps[-1]}" if steps else "the beginning"}'
    )

  def close(self) -> None:
    """Waits for what this process writes and lets go of it; asks the other processes nothing.

    Raises:
      UserError: a save was refused, and nobody has asked for it.
    """
    reason = ''
    if self._manager_or_none is not None:
      try:
        self._manager_or_none.wait_until_finished()
        self._manager_or_none.close()
      except Exception as error:
        reason = why_refused(error, self.folder.parent)
        if not reason:
          raise
    reasons = [each.reason for each in self._refusals] + ([reason] if reason else [])
    if reasons:
      raise UserError(self._sentence(reasons[-1]))

  def restore(self, target: State) -> tuple[State, dict[str, Any]] | None:
    """Restores the newest checkpoint that is whole; damaged ones are set aside with a warning.

    Args:
      target: the state as `jax.ShapeDtypeStruct`s with shardings: any mesh will do.

    Returns:
      (state, meta), or None if there is none.

    Raises:
      UserError: the state has another structure.
    """
    found = self._newest(_items(target))
    if found is None:
      return None
    items, meta = found
    held, training = items[VARIABLES], items[TRAINING]
    state = State(
      training['step'], held.params, held.mutable, training['opt_state'], held.ema, training['key']
    )
    self._saved = int(meta['step'])
    return state, meta

  def restore_weights(
    self, target: Weights, step: int | None = None
  ) -> tuple[Weights, dict[str, Any]] | None:
    """Restores what is needed after training, of `step` or of the newest checkpoint that is whole.

    Args:
      target: as in `restore`.
      step: None for the newest.

    Raises:
      UserError: `step` is damaged or not there, or the weights have another structure.
    """
    items = {VARIABLES: target}
    if step is None:
      found = self._newest(items)
    else:
      if step not in self.steps():
        raise UserError(f'there is no checkpoint {step}; there are: {self.steps()}')
      restored, meta, reason = self._read(step, items)
      if reason:
        raise UserError(f'checkpoint {step} is damaged ({reason}); choose another step')
      found = restored, meta
    return None if found is None else (found[0][VARIABLES], found[1])

  def best_step(self, lane: int = 0) -> int | None:
    """Returns the kept checkpoint with the best figure of a lane, None if none was ranked."""
    return self.best_of(self.steps(), lane)

  def best_of(self, steps: Sequence[int], lane: int) -> int | None:
    """Returns which of the checkpoints `steps` has the best figure of a lane, None for none."""
    known = self._known_ranks()
    values = [(known.get(step, {}).get(_rank_name(lane), math.nan), step) for step in steps]
    ranked = [(value, step) for value, step in values if math.isfinite(value)]
    if not ranked:
      return None
    return (min if self._mode == 'min' else max)(ranked)[1]

  def best_of_lanes(self, steps: Sequence[int]) -> set[int | None]:
    """Returns which of the checkpoints `steps` are the best of any lane."""
    return {self.best_of(steps, lane) for lane in range(self._lanes)}

  def _known_ranks(self) -> dict[int, dict[str, float]]:
    """The ranks of every checkpoint by step, read once."""
    if self._ranks_or_none is None:
      read = {step: _read_meta(self.folder / str(step)) for step in self.steps()}
      metas = {step: meta if meta and meta['step'] == step else None for step, meta in read.items()}
      self._ranks_or_none = {step: meta['best'] if meta else {} for step, meta in metas.items()}
      for step in [step for step, meta in metas.items() if meta is None and self.best]:
        print(
          f'warning: checkpoint {step} is damaged (its description is unreadable or of another '
          'step), so that it is not among those that are compared for the best',
          file=sys.stderr,
        )
    return self._ranks_or_none

  def _ranks(self, figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The figure that ranks a checkpoint, of every lane; the worst where there is none."""
    if not self.best:
      return {}
    worst = math.inf if self._mode == 'min' else -math.inf
    values = [lane.get(self.best, math.nan) for lane in figures] or [math.nan] * self._lanes
    # A NaN would count as the best of all.
    return {
      _rank_name(lane): float(value) if math.isfinite(value) else worst
      for lane, value in enumerate(values)
    }

  def _newest(self, target: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    steps = sorted([*self.steps(), *self._no_folders()], reverse=True)
    for step in distributed.of_first('checkpoints', steps):
      items, meta, reason = self._read(step, target)
      # One process may fail to read what the others can.
      reason = distributed.first_complaint(f'checkpoint {step}', reason)
      if not reason:
        return items, meta
      self._set_aside(step, reason)
    return None

  def _no_folders(self) -> list[int]:
    """The steps under whose names there is a file or a broken link, which Orbax passes over."""
    if not files.is_local(self.folder):
      return []
    names = [each.name for each in files.entries(self.folder) if not each.is_dir()]
    return [int(name) for name in names if name.isdigit()]

  def _read(
    self, step: int, target: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(items, meta, ''), or what is wrong with the checkpoint as the last."""
    import orbax.checkpoint as ocp

    folder = self.folder / str(step)
    if not distributed.is_seen(folder) or not folder.is_dir():
      return {}, {}, 'it is no folder'
    meta = _read_meta(folder)
    if meta is None:
      return {}, {}, 'its description is unreadable'
    if meta['step'] != step:
      return {}, meta, f'it is that of step {meta["step"]}'
    for name, item in target.items():
      # A difference that the user asked for is no damage, and is said before anything is read.
      _compare(meta['fingerprint'][name], item, f'checkpoint {step} in {self.folder.parent}')
    items = {}
    for name, item in target.items():
      try:
        with ocp.StandardCheckpointer() as checkpointer:
          items[name] = checkpointer.restore(folder / name, item)
      except Exception as error:  # Orbax raises many kinds for a damaged file.
        if is_out_of_memory(error):
          raise
        _check_readable(error, folder)
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return {}, meta, first.partition(' See full TensorStore details')[0][:200].rstrip('.')
      found = fingerprint(items[name])
      wrong = [leaf for leaf, entry in meta['fingerprint'][name].items() if found[leaf] != entry]
      if wrong:
        return {}, meta, f'{wrong[0]} differs from what was saved'
    return items, meta, ''

  def _set_aside(self, step: int, reason: str) -> None:
    if self._read_only:
      print(f'warning: checkpoint {step} is damaged ({reason})', file=sys.stderr)
      return
    self.set_aside.append(step)
    # The first of several processes moves it, when all have looked at it.
    if jax.process_index() == 0:
      self._move_aside(step, reason)
    distributed.agree(f'checkpoint {step} is set aside')

  def _move_aside(self, step: int, reason: str) -> None:
    aside = _unused(self.folder.parent / 'damaged_checkpoints', str(step))
    with self.disk_errors():
      files.move_folder(self.folder / str(step), aside)
    print(
      f'warning: checkpoint {step} is damaged ({reason}); set aside as {aside}', file=sys.stderr
    )

  def _manager(self):
    if self._manager_or_none is None:
      self._manager_or_none = self._make_manager()
    return self._manager_or_none

  def _make_manager(self):
    import orbax.checkpoint as ocp

    for step in self.steps():
      _check_times(self.folder / str(step))
    policies = ocp.checkpoint_managers
    # Ranked by what our own descriptions say: Orbax's metrics files are one more thing to damage.
    keep = policies.AnyPreservationPolicy([policies.LatestN(self._keep), _Best(self)])
    several = len(distributed.hosts()) > 1
    return ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
        async_options=ocp.AsyncOptions(barrier_sync_fn=self._barrier if several else None),
      ),
    )

  def disk_errors(self) -> contextlib.AbstractContextManager[None]:
    """Within it, a write that the disk refuses is a UserError naming the step to go on from."""
    return _disk_errors(self)


class _Best:
  """Orbax's preservation policy that keeps the best checkpoint of every lane.

  Args:
    checkpoints: those of the run.
  """

  def __init__(self, checkpoints: Checkpoints):
    self._checkpoints = checkpoints

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    """Returns, for each of Orbax's descriptions of a checkpoint, whether it stays."""
    del context
    steps = [int(each.step) for each in checkpoints]
    best = self._checkpoints.best_of_lanes(steps)
    return [step in best for step in steps]


def _unused(folder: files.Path, name: str) -> files.Path:
  """The path NAME in a folder, or NAME-2, NAME-3, … where there is one already."""
  names = (name if number == 1 else f'{name}-{number}' for number in itertools.count(1))
  return next(folder / each for each in names if not (folder / each).exists())


def _rank_name(lane: int) -> str:
  return f'lane_{lane}'


def _items(state: State) -> dict[str, Any]:
  """The two parts of a state that are saved."""
  training = {'opt_state': state.opt_state, 'key': state.key, 'step': state.step}
  return {VARIABLES: weights(state), TRAINING: training}


# What Orbax has in the names of what is not finished, and this class in those of its trials, which
# take so many bytes.
_UNFINISHED, _TRIAL, _LEAST_ROOM = '.orbax-checkpoint-tmp', '.trial-', 2**16


@contextlib.contextmanager
def _disk_errors(checkpoints: Checkpoints) -> Iterator[None]:
  """Turns the failure of a write into one sentence that names what is still there."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    reason = why_refused(error, checkpoints.folder.parent)
    if not reason:
      raise
    raise UserError(checkpoints._sentence(reason)) from error


# Orbax's own description of a checkpoint, and the types of its values.
_ORBAX_META = '_CHECKPOINT_METADATA'
_TYPES: Mapping[str, type] = {
  'item_handlers': dict,
  'metrics': dict,
  'performance_metrics': dict,
  'init_timestamp_nsecs': int,
  'commit_timestamp_nsecs': int,
  'custom_metadata': dict,
}


def _check_times(folder: files.Path) -> None:
  """Sets the file aside in which Orbax says when a checkpoint was written, if it is damaged.

  Nothing that is restored is in it, but Orbax fails on one that is JSON of another form.
  """
  path = folder / _ORBAX_META
  try:
    found = files.read_json(path)
    whole = isinstance(found, dict) and all(
      isinstance(found.get(key), (kind, type(None))) for key, kind in _TYPES.items()
    )
  except FileNotFoundError:
    return
  except (OSError, ValueError):
    whole = False
  if not whole:
    files.move_file(path, _unused(folder, f'{_ORBAX_META}.damaged'))
    print(f'warning: {path} is damaged and set aside; it holds times alone', file=sys.stderr)


def _read_meta(folder: files.Path) -> dict[str, Any] | None:
  """The description of a checkpoint; None where it is damaged.

  Raises:
    UserError: the system does not let it be read.
  """
  import orbax.checkpoint as ocp

  try:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
      meta = checkpointer.restore(folder / META)
  except Exception as error:  # Orbax raises many kinds for a missing or damaged file.
    _check_readable(error, folder)
    return None
  known = {'fingerprint', 'step', 'best'}
  whole = isinstance(meta, dict) and known <= meta.keys() and is_whole(meta)
  return meta if whole else None


# What keeps a checkpoint from being read that is not damaged: who asks, the network, the disk.
_UNREADABLE = (
  errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT,
)  # fmt: skip
_UNAVAILABLE = ('PERMISSION_DENIED', 'UNAUTHENTICATED', 'UNAVAILABLE', 'DEADLINE_EXCEEDED')


def _check_readable(error: Exception, folder: files.Path) -> None:
  """Raises UserError where an error does not say that a checkpoint is damaged.

  A whole one is never set aside because it could not be read for a while.
  """
  text = str(error)
  numbers = [number for number in _UNREADABLE if os.strerror(number) in text]
  if isinstance(error, OSError) and error.errno in _UNREADABLE:
    numbers = [error.errno]
  words = [word for word in _UNAVAILABLE if word in text]
  status = getattr(error, 'code', None)
  if numbers or words or status in FORBIDDEN:
    reason = os.strerror(numbers[0]) if numbers else words[0] if words else f'HTTP {status}'
    raise UserError(
      f'{folder} cannot be read ({reason}), and may be whole; let this user read it and run the '
      'same command again, or move it away to go on from an earlier checkpoint'
    ) from error


def _compare(saved: Mapping[str, Any], target: Any, what: str) -> None:
  """Raises UserError, naming the leaves, unless `target` has the saved structure of `what`."""
  expected = {name: describe(leaf) for name, leaf in _named_leaves(target)}
  missing = sorted(set(expected) - set(saved))
  extra = sorted(set(saved) - set(expected))
  other = sorted(n for n in set(expected) & set(saved) if list(expected[n]) != list(saved[n][:2]))
  if missing or extra or other:
    parts = [
      f'{label}: {", ".join(names[:5])}{"…" if len(names) > 5 else ""}'
      for label, names in (('missing', missing), ('extra', extra), ('of another shape', other))
      if names
    ]
    raise UserError(
      f'{what} does not fit this config ({"; ".join(parts)}); use the config it was made '
      'with, or another --workdir'
    )


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
  return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def describe(leaf: Any) -> tuple[str, str]:
  """Returns (shape, dtype) of a leaf as text."""
  return str(tuple(leaf.shape)), str(leaf.dtype)


def fingerprint(tree: Any) -> dict[str, list[Any]]:
  """Returns `{leaf: [shape, dtype, checksum]}`; the checksum is the same on any mesh."""
  named = _named_leaves(tree)
  sums = jax.device_get(_checksums([leaf for _, leaf in named]))
  return {
    name: [*describe(leaf), int(value)] for (name, leaf), value in zip(named, sums, strict=True)
  }


@jax.jit
def _checksums(leaves: list[Any]) -> list[jax.Array]:
  return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: jax.Array) -> jax.Array:
  """Σ bits[i]·(2i + 1) mod 2³²: every weight is odd, so no single flipped bit goes unseen."""
  if jax.typeof(leaf).memory_space == jax.memory.Space.Host:
    leaf = jax.device_put(leaf, jax.memory.Space.Device)
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  bits = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
  bits = jax.lax.bitcast_convert_type(bits, width).astype(jnp.uint32).reshape(-1)
  return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)
