"""All folds of a cross-validation in one program: one state stacked over the folds, its lanes.

The split lies on the devices once, and each lane skips its own fold by arithmetic. A lane starts,
draws and ends as the ordinary run of its fold (`--config.data.folds=K --config.data.fold=i`) does,
up to the rounding of another program. What train.py does on the way for people to look at, samples
and evaluations, is left out.
"""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from data import arrays, placement
from data.resident import Resident
from data.selection import fold_bounds
from data.source import Examples
from data.transforms import prepare
from engine import runtime, summaries
from engine.build import call, to_plain
from engine.checkpoint import Checkpoints
from engine.interrupts import Interrupts
from engine.loop import DISPATCH_SECONDS
from engine.report import Report
from engine.session import Session
from engine.state import State, stream_key
from engine.step import make_step
from engine.transfer import transfer
from errors import UserError


class Lanes(NamedTuple):
  """A cross-validation made concrete; nothing is allocated yet.

  Attributes:
    session: of fold 0; those of the other folds differ in their examples alone.
    source: the split that the folds are cut from.
    bounds: int32 [K, 2], the first example of each fold and how many it has.
    abstract: the state with K on the leading axis of every leaf, as `jax.ShapeDtypeStruct`s with
      their shardings.
  """

  session: Session
  source: Examples
  bounds: np.ndarray
  abstract: State

  @property
  def number(self) -> int:
    """K, how many folds there are."""
    return len(self.bounds)

  @property
  def places(self) -> Any:
    """The sharding of every leaf of the stacked state."""
    return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)


def fit_together(session: Session, source: Examples) -> bool:
  """Whether the folds can be lanes: they end at the same step, and the split is resident."""
  return (
    not session.train.patience
    and not session.data.text
    and arrays.size_bytes(source) <= session.data.resident_mb * 2**20
    and jax.process_count() == 1
  )


def open_lanes(session: Session, source: Examples) -> Lanes:
  """Makes lanes of the folds that `session`, of fold 0, says the split `source` has."""
  folds = session.data.folds
  ends = [fold_bounds(fold, folds, source.spec.n) for fold in range(folds)]
  bounds = np.array([(start, stop - start) for start, stop in ends], np.int32)

  def stacked(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    place = NamedSharding(session.mesh, PartitionSpec(None, *leaf.sharding.spec))
    return jax.ShapeDtypeStruct((folds, *leaf.shape), leaf.dtype, sharding=place)

  return Lanes(session, source, bounds, jax.tree.map(stacked, session.abstract))


def stack(lanes: Lanes, state: State) -> State:
  """The state of one lane, in every lane: all folds have the same seed, and so the same start."""
  copies = lambda leaf: jnp.broadcast_to(leaf, (lanes.number, *leaf.shape))  # noqa: E731
  return jax.jit(lambda tree: jax.tree.map(copies, tree), out_shardings=lanes.places)(state)


def lane(state: State, fold: int) -> State:
  """The state of one fold."""
  return jax.tree.map(lambda leaf: leaf[fold], state)


class LaneFeed:
  """The batches of every lane; `data.feed.Feed` but that `batch` is told the fold to leave out."""

  def __init__(self, lanes: Lanes):
    session = lanes.session
    self._mesh = session.mesh
    # The order of one fold's training examples, which is that of all: their number is the same.
    self._order = Resident({}, session.spec, session.per_step, session.train.seed, session.mesh)
    self._arrays = placement.replicate(arrays.load_arrays(lanes.source), session.mesh)

  def take(self, used: int, steps: int) -> tuple[int, dict[str, Any]]:
    """Returns (how many of the steps this hands out, what `batch` needs for them)."""
    number, order = self._order.take(used, steps)
    return number, {'order': order, 'arrays': self._arrays}

  def batch(self, taken: dict[str, Any], i: jax.Array, bounds: jax.Array) -> dict[str, jax.Array]:
    """Inside jit: the i-th batch of a lane, `index` [B] counted in that fold's training set.

    Args:
      taken: of `take`.
      i: which batch, from 0.
      bounds: int32 [2], first example and number of examples of the fold that is held out.
    """
    batch = self._order.batch(taken['order'], i)
    example = outside(batch['index'], bounds)
    rows = {
      name: array.at[example].get(mode='promise_in_bounds')
      for name, array in taken['arrays'].items()
    }
    return {**placement.split_batch(rows, self._mesh), **batch}


def outside(index: jax.Array, bounds: jax.Array) -> jax.Array:
  """The example that is number `index` of those outside a fold, int32 of the shape of `index`.

  `bounds` is int32 [2], the fold's first example and its number of examples.
  """
  start, size = bounds
  return index + jnp.where(index >= start, size, 0)


class LaneProgram(NamedTuple):
  """What `make_program` returns.

  Attributes:
    dispatch: `(state, taken, steps) -> (state, rows)`, state donated; `rows` is float32
      [K, capacity, M], one row a step.
    names: of the M columns; filled when `dispatch` is first traced.
    capacity: most steps of one dispatch.
  """

  dispatch: Callable
  names: list[str]
  capacity: int


def make_program(lanes: Lanes, feed: LaneFeed) -> LaneProgram:
  """Compiles nothing yet: returns the jitted loop over steps, mapped over the lanes.

  As in `engine.program`, the trip count is an argument. Accelerators step all lanes at once. On a
  CPU, where batched products are slower than single ones, the lanes take turns; each takes all the
  steps of a dispatch, for to change lanes at every step is to copy its state at every step.
  """
  session = lanes.session
  capacity, augment = session.train.dispatch, session.data.augment
  step = make_step(
    session.objective,
    session.optimizers,
    to_plain(session.config.ema),
    session.train.accumulate,
    session.data.batch_size,
    session.frozen,
  )
  names: list[str] = []

  @jax.jit  # Traced once, though it is used twice below.
  def one(state: State, bounds: jax.Array, taken: Any, i: jax.Array):
    batch = feed.batch(taken, i, bounds)
    return step(state, prepare(batch, stream_key(state.key, 'data'), augment))

  def steps_of_lane(state: State, bounds: jax.Array, taken: Any, steps: jax.Array):
    def body(carry):
      i, state, rows = carry
      state, metrics = one(state, bounds, taken, i)
      row = jnp.stack([jnp.float32(metrics[name]) for name in names])
      return i + 1, state, rows.at[i].set(row)

    names[:] = sorted(jax.eval_shape(one, state, bounds, taken, jnp.int32(0))[1])
    # The condition is the same in every lane: else each step of all would end in a choice between
    # the old state and the new. So a lane that is not finite goes on to the end of the dispatch.
    carry = (jnp.int32(0), state, jnp.zeros((capacity, len(names)), jnp.float32))
    return jax.lax.while_loop(lambda carry: carry[0] < steps, body, carry)[1:]

  def dispatch(state: State, taken: Any, steps: jax.Array):
    bounds = jnp.asarray(lanes.bounds)
    if jax.default_backend() == 'cpu':
      return jax.lax.map(lambda one: steps_of_lane(*one, taken, steps), (state, bounds))
    return jax.vmap(steps_of_lane, (0, 0, None, None))(state, bounds, taken, steps)

  jitted = jax.jit(
    dispatch,
    donate_argnums=0,
    out_shardings=(lanes.places, session.everywhere),
    compiler_options=dict(runtime.compiler_options()),
  )
  return LaneProgram(jitted, names, capacity)


def train(lanes: Lanes, workdir: str) -> tuple[State, int]:
  """Trains all folds from the newest checkpoint, if there is one, to the last step.

  Args:
    lanes: what to train.
    workdir: a folder that is there, and that this process alone writes to.

  Returns:
    (the stacked state, the step it is of: the last one, or a later one of a longer training that
    was done here before).

  Raises:
    UserError: the folder, the data or the devices do not allow it, or a fold stopped being finite.
    SystemExit: 130 or 143 after Ctrl-C or SIGTERM, with everything saved.
  """
  session, steps = lanes.session, lanes.session.train.steps
  # No evaluation is made on the way that a checkpoint could be the best of.
  options = {**to_plain(session.config.checkpoint), 'best': ''}
  checkpoints = call(Checkpoints, options, 'config.checkpoint', workdir)
  with ExitStack() as stack:
    stack.callback(checkpoints.close)
    state, start, source = _restore_or_init(lanes, checkpoints)
    if start >= steps:
      print(f'complete step {start} of {steps} of all folds in {workdir}', flush=True)
      return state, start
    print(f'modules  {summaries.modules(session.abstract)} in each fold', flush=True)
    if start:
      print(f'resumed  from step {start} of {steps} in {workdir}', flush=True)
    report = Report(workdir, start, steps, visible=True)
    stack.callback(report.close)
    with checkpoints.disk_errors():
      state = _Trainer(lanes, workdir, checkpoints, report, source).run(state, start)
    return state, steps


def _restore_or_init(lanes: Lanes, checkpoints: Checkpoints) -> tuple[State, int, str]:
  """(stacked state, its step, where its parameters came from or '')."""
  session, spec = lanes.session, lanes.source.spec
  found = checkpoints.restore(lanes.abstract)
  if found is not None:
    state, meta = found
    if (meta['data'], meta['n']) != (spec.identity, spec.n):
      raise UserError(
        f'the folds were trained on other data ({meta["n"]} examples) than {spec.name} here '
        f'({spec.n}); point --config.data.data_dir at that data, or use another --workdir'
      )
    return state, int(meta['step']), meta['transferred_from']
  state, source = session.init(), ''
  if session.config.init_from:
    rules = session.config.init_rules
    state, moved = transfer(state, session.config.init_from, rules)
    source = moved.source
    for line in moved.lines():
      print(f'transfer {line}', flush=True)
  return stack(lanes, state), 0, source


class _Trainer:
  """What one call of `train` holds while it runs."""

  def __init__(
    self,
    lanes: Lanes,
    workdir: str,
    checkpoints: Checkpoints,
    report: Report,
    transferred_from: str,
  ):
    self.lanes, self.session, self.options = lanes, lanes.session, lanes.session.train
    self.workdir, self.checkpoints, self.report = workdir, checkpoints, report
    self._transferred_from = transferred_from
    self.feed = LaneFeed(lanes)
    self.program = make_program(lanes, self.feed)
    self._intervals = (self.options.log_every, checkpoints.every)
    self._rows: list[np.ndarray] = []  # read since the last log line
    self._last_read = 0.0
    self._speed = 0.0  # steps/s of the last dispatch that was read
    self._shown: float | None = None  # likewise, without the dispatch that compiles

  def run(self, state: State, start: int) -> State:
    """Dispatch by dispatch to the last step; metrics are read while the next one computes."""
    step, waiting = start, None
    with Interrupts() as interrupts, jax.transfer_guard('disallow'):
      while step < self.options.steps:
        number, taken = self.feed.take(step * self.session.per_step, self._next_length(step))
        started = time.perf_counter()
        state, rows = self.program.dispatch(state, taken, self._put(np.int32(number)))
        step += number
        if waiting is not None:
          self._read(*waiting)
        waiting = (step, number, rows, started)
        signalled = interrupts.received()
        if self._is_event(step) or signalled or not self._speed:
          # The state itself is wanted, or the length of the next dispatch: no use running ahead.
          self._read(*waiting)
          waiting = None
          self._events(step, state)
        if signalled:
          self._leave(step, state, signalled)
      self.checkpoints.wait()
    return state

  def _next_length(self, step: int) -> int:
    """Steps of the next dispatch: up to the next event, and for about DISPATCH_SECONDS."""
    room = min(self.program.capacity, self.options.steps - step)
    room = min([room, *(every - step % every for every in self._intervals)])
    return max(1, min(room, round(self._speed * DISPATCH_SECONDS)))

  def _is_event(self, step: int) -> bool:
    return step >= self.options.steps or any(step % every == 0 for every in self._intervals)

  def _read(self, step: int, number: int, rows: jax.Array, started: float) -> None:
    """Waits for one dispatch's metrics, and moves the bar."""
    rows = np.asarray(jax.device_get(rows)).swapaxes(0, 1)[:number]  # [steps, K, M]
    now = time.perf_counter()
    seconds = max(now - max(started, self._last_read), 1e-9)
    self._last_read = now
    bad = np.argwhere(~np.isfinite(rows))
    if bad.size:
      first, fold, _ = bad[0]
      self._stop_not_finite(step - number + int(first) + 1, int(fold), rows[first, fold])
    self._rows.append(rows)
    speed = number / seconds
    self._shown = speed if self._speed else None
    self._speed = speed
    metrics = self._named(rows[-1].mean(axis=0))
    self.report.progress(step, self._shown, metrics, self._is_logged(step))

  def _events(self, step: int, state: State) -> None:
    """Log, save: whatever is due at `step`."""
    if self._is_logged(step):
      means = np.concatenate(self._rows).astype(np.float64).mean(axis=0)
      figures = self._named(means.mean(axis=0))
      for fold, mean in enumerate(means):
        figures.update({f'{name}/fold_{fold}': v for name, v in self._named(mean).items()})
      self.report.scalars(step, self._shown, figures)
      self._rows = []
    if step % self.checkpoints.every == 0 or step >= self.options.steps:
      self._save(step, state)

  def _is_logged(self, step: int) -> bool:
    return step >= self.options.steps or step % self.options.log_every == 0

  def _named(self, row: np.ndarray) -> dict[str, float]:
    return dict(zip(self.program.names, row))

  def _save(self, step: int, state: State) -> None:
    spec = self.lanes.source.spec
    meta: dict[str, Any] = {
      'used': step * self.session.per_step,
      'seed': self.options.seed,
      'data': spec.identity,
      'n': spec.n,
      'config': to_plain(self.session.config),
      'versions': runtime.versions(),
      'transferred_from': self._transferred_from,
    }
    with jax.transfer_guard('allow'):
      self.checkpoints.save(step, state, meta, {})

  def _leave(self, step: int, state: State, number: int) -> NoReturn:
    self._save(step, state)
    self.checkpoints.wait()
    self.report.say(
      f'stopped  by {signal.Signals(number).name} at step {step} of {self.options.steps}, saved in '
      f'{self.workdir}; run the same command to go on'
    )
    sys.exit(128 + number)

  def _stop_not_finite(self, step: int, fold: int, row: np.ndarray) -> NoReturn:
    values = self._named(row)
    bad = ', '.join(
      f'{name} is {value}' for name, value in values.items() if not np.isfinite(value)
    )
    saved = self.checkpoints.steps()
    raise UserError(
      f'training stopped at step {step}: in fold {fold} of {self.lanes.number} {bad}; the last '
      f'good checkpoint is {f"step {saved[-1]}" if saved else "none"}; in a new --workdir, try '
      'lower learning rates in config.optimizer, or clip=1.0 there'
    )

  def _put(self, value: np.generic) -> jax.Array:
    return jax.device_put(value, self.session.everywhere)
