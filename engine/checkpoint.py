"""Saving and restoring a run: Orbax behind one class.

A checkpoint is a folder `checkpoints/STEP` with the state (Orbax's standard format, no pickle) and
a JSON beside it that says what the state is: `used`, seed, data, config, versions and a fingerprint
of every leaf, which is compared on restore since Orbax does not notice a flipped bit.
"""

import contextlib
import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from engine.sharding import path_name
from errors import UserError

FORMAT = 1


class Checkpoints:
  """The checkpoints of one run.

  Args:
    workdir: the run's folder.
    every: steps between checkpoints; read by the loop.
    keep: how many of the newest stay.
    best: the metric whose best checkpoint stays too, as `eval/NAME`; '' for none.
    best_mode: 'min' or 'max'.
  """

  def __init__(
    self, workdir: str, *, every: int, keep: int, best: str, best_mode: str, read_only: bool = False
  ):
    if every < 1 or keep < 1:
      raise UserError('config.checkpoint.every and config.checkpoint.keep must be at least 1')
    if best_mode not in ('min', 'max'):
      raise UserError(f'config.checkpoint.best_mode={best_mode} must be min or max')
    self.every = every
    self.folder = Path(os.path.abspath(workdir)) / 'checkpoints'
    self._keep, self._best, self._mode = keep, best, best_mode
    self._read_only = read_only
    self._manager_or_none = None
    self._saved = -1

  def steps(self) -> list[int]:
    """Steps of the finished checkpoints, oldest first. Needs neither Orbax nor a device."""
    return _finished_steps(self.folder)

  def save(self, step: int, state: Any, meta: Mapping[str, Any], metrics: Mapping[str, float]):
    """Starts writing in the background; the state may be donated right after.

    Raises:
      UserError: the disk refused (full, read-only); what was saved before stays.
    """
    import orbax.checkpoint as ocp

    if step == self._saved:
      return
    meta = {**meta, 'format': FORMAT, 'step': step, 'fingerprint': fingerprint(state)}
    ranked = None
    if self._best:
      value = metrics.get(self._best, math.nan)
      worst = math.inf if self._mode == 'min' else -math.inf
      # A NaN would count as the best of all.
      ranked = {self._best: float(value) if math.isfinite(value) else worst}
    with self.disk_errors():
      self._manager().save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
        metrics=ranked,
        force=True,
      )
    self._saved = step

  def wait(self) -> None:
    """Returns when everything is on disk."""
    if self._manager_or_none is not None:
      with self.disk_errors():
        self._manager_or_none.wait_until_finished()

  def close(self) -> None:
    if self._manager_or_none is not None:
      self.wait()
      self._manager_or_none.close()

  def restore(self, target: Any, step: int | None = None) -> tuple[Any, dict[str, Any]] | None:
    """Restores `step`, or the newest checkpoint that is whole.

    Args:
      target: the state as `jax.ShapeDtypeStruct`s with shardings: any mesh will do.
      step: None for the newest. Damaged ones on the way are set aside with a warning.

    Returns:
      (state, meta), or None if there is none.

    Raises:
      UserError: `step` is damaged or not there, or the state has another structure.
    """
    for candidate in reversed(self.steps()) if step is None else [step]:
      if candidate not in self.steps():
        raise UserError(f'there is no checkpoint {candidate}; there are: {self.steps()}')
      meta = _read_meta(self.folder / str(candidate))
      if meta is not None:
        # A difference that the user asked for is no damage: say so before reading.
        _compare(meta['fingerprint'], target)
        state, reason = self._try(candidate, target, meta)
      else:
        state, reason = None, 'its description is unreadable'
      if state is not None:
        self._saved = candidate
        return state, meta
      if step is not None:
        raise UserError(f'checkpoint {candidate} is damaged ({reason}); choose another step')
      self._set_aside(candidate, reason)
    return None

  def best_step(self) -> int | None:
    """The kept checkpoint with the best metric, or None if none was ranked."""
    ranked = []
    for step in self.steps():
      value = _read_json(self.folder / str(step) / 'metrics' / 'metrics')
      if value and math.isfinite(next(iter(value.values()))):
        ranked.append((next(iter(value.values())), step))
    if not ranked:
      return None
    return (min if self._mode == 'min' else max)(ranked)[1]

  def _try(self, step: int, target: Any, meta: Mapping[str, Any]) -> tuple[Any, str]:
    """(state, '') or (None, what is wrong)."""
    import orbax.checkpoint as ocp

    try:
      with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(self.folder / str(step) / 'state', target)
    except Exception as error:  # Orbax raises many kinds for a damaged file.
      return None, str(error).strip().splitlines()[0][:200]
    found = fingerprint(state)
    wrong = [leaf for leaf, entry in meta['fingerprint'].items() if found[leaf] != entry]
    if wrong:
      return None, f'{wrong[0]} differs from what was saved'
    return state, ''

  def _set_aside(self, step: int, reason: str) -> None:
    if self._read_only:
      print(f'warning: checkpoint {step} is damaged ({reason})', file=sys.stderr)
      return
    aside = self.folder / f'{step}.broken'
    shutil.rmtree(aside, ignore_errors=True)
    (self.folder / str(step)).rename(aside)
    print(
      f'warning: checkpoint {step} is damaged ({reason}); set aside as {aside}', file=sys.stderr
    )

  def _manager(self):
    if self._manager_or_none is None:
      self._manager_or_none = self._make_manager()
    return self._manager_or_none

  def _make_manager(self):
    import orbax.checkpoint as ocp

    policies = ocp.checkpoint_managers
    keep = policies.LatestN(self._keep)
    options = {}
    if self._best:
      # best_fn as well as BestN: without it the metrics are not written, and a restart forgets.
      options = {'best_fn': lambda m: m[self._best], 'best_mode': self._mode}
      best = policies.BestN(get_metric_fn=lambda m: m[self._best], reverse=self._mode == 'min', n=1)
      keep = policies.AnyPreservationPolicy([keep, best])
    for step in self.steps():
      if self._best and _read_json(self.folder / str(step) / 'metrics' / 'metrics') is None:
        # An unreadable metrics file would keep the manager from opening.
        shutil.rmtree(self.folder / str(step) / 'metrics', ignore_errors=True)
    with self.disk_errors():
      return ocp.CheckpointManager(
        self.folder,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=keep,
          enable_async_checkpointing=True,
          cleanup_tmp_directories=True,
          **options,
        ),
      )

  def disk_errors(self) -> contextlib.AbstractContextManager[None]:
    """Within it, a write that the disk refuses is a UserError naming the step to go on from."""
    return _disk_errors(self)


_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def _disk_errors(checkpoints: Checkpoints) -> Iterator[None]:
  """Turns the failure of a write into one sentence that says what is still there."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Orbax's background writer raises ValueError with the status as text.
    full = 'RESOURCE_EXHAUSTED' in text or 'No space left' in str(error)
    if not full and getattr(error, 'errno', None) not in _REFUSED:
      raise
    steps = checkpoints.steps()
    raise UserError(
      f'could not write to {checkpoints.folder.parent} ({text[:160]}); free some space and run the '
      f'same command again: it goes on from {f"step {steps[-1]}" if steps else "the beginning"}'
    ) from error


def _finished_steps(folder: Path) -> list[int]:
  """Folders named by a number: Orbax renames a checkpoint to that only when it is whole."""
  if not folder.is_dir():
    return []
  return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def _read_json(path: Path) -> Any:
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    return None


def _read_meta(folder: Path) -> dict[str, Any] | None:
  meta = _read_json(folder / 'meta' / 'metadata')
  return meta if isinstance(meta, dict) and 'fingerprint' in meta else None


def _compare(saved: Mapping[str, Any], target: Any) -> None:
  """Raises UserError, naming the leaves, unless `target` has the saved structure."""
  wanted = {name: describe(leaf) for name, leaf in _named_leaves(target)}
  missing = sorted(set(wanted) - set(saved))
  extra = sorted(set(saved) - set(wanted))
  other = sorted(n for n in set(wanted) & set(saved) if list(wanted[n]) != list(saved[n][:2]))
  if missing or extra or other:
    parts = [
      f'{label}: {", ".join(names[:5])}{"…" if len(names) > 5 else ""}'
      for label, names in (('missing', missing), ('extra', extra), ('of another shape', other))
      if names
    ]
    raise UserError(
      f'the checkpoint does not fit this config ({"; ".join(parts)}); use the config it was made '
      'with, or another --workdir'
    )


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
  return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def describe(leaf: Any) -> tuple[str, str]:
  """(shape, dtype) as text."""
  return str(tuple(leaf.shape)), str(leaf.dtype)


def fingerprint(state: Any) -> dict[str, list[Any]]:
  """`{leaf: [shape, dtype, checksum]}`; the checksum is the same on any mesh."""
  named = _named_leaves(state)
  sums = jax.device_get(_checksums([leaf for _, leaf in named]))
  return {
    name: [*describe(leaf), int(value)] for (name, leaf), value in zip(named, sums, strict=True)
  }


@jax.jit
def _checksums(leaves: list[Any]) -> list[jax.Array]:
  return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: jax.Array) -> jax.Array:
  """Σ bits[i]·(2i + 1) mod 2³²: every weight is odd, so no single flipped bit goes unseen."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  bits = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
  bits = jax.lax.bitcast_convert_type(bits, width).astype(jnp.uint32).reshape(-1)
  return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)
