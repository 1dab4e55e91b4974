"""The training loop: the only one, for every family."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

from data.feed import Feed
from data.resident import Resident
from data.text import tokenization
from engine import evaluation, run, runtime, summaries
from engine.build import call, to_plain
from engine.checkpoint import Checkpoints
from engine.interrupts import Interrupts
from engine.patience import Patience
from engine.profile import Profile
from engine.program import make_program
from engine.report import Report
from engine.session import Session, Train, open_feed, open_session
from engine.state import State, stream_key, variables_for_sampling
from engine.transfer import transfer
from errors import UserError, nearest

# A dispatch aims at this many seconds: long enough that the host costs nothing, short enough that
# the bar moves and Ctrl-C is heard.
DISPATCH_SECONDS = 0.5


def train(config: ConfigDict, workdir: str) -> None:
  """Trains `config` in `workdir`, from its newest checkpoint if there is one, to the last step.

  Raises:
    UserError: the config, the folder, the data or the devices do not allow it, or the training
      stopped being finite.
    SystemExit: 130 or 143 after Ctrl-C or SIGTERM, with everything saved.
  """
  session = open_session(config)
  evaluator = evaluation.make_evaluator(session)
  checkpoints = call(Checkpoints, to_plain(config.checkpoint), 'config.checkpoint', workdir)
  first, steps = jax.process_index() == 0, session.train.steps

  def say(what: str, line: str) -> None:
    if first:
      print(f'{what:9}{line}', flush=True)

  say('devices', summaries.devices(session.mesh))
  with ExitStack() as stack:
    if first:
      stack.enter_context(run.only_writer(workdir))
      for line in run.claim(workdir, config, session.spec):
        say('changed', line)
    stack.callback(checkpoints.close)
    state, start, meta = _restore_or_init(checkpoints, session, say)
    patience = Patience(*meta['patience'])
    if start >= steps or _exhausted(patience, session.train):
      early = ' (stopped early)' if start < steps else ''
      say('complete', _what_next(workdir, start, session, early))
      return
    feed = open_feed(session, start)
    stack.callback(feed.close)
    say('data', summaries.data(session.spec, isinstance(feed, Resident)))
    say('modules', summaries.modules(session.abstract))
    if start:
      say('resumed', f'from step {start} of {steps} in {workdir}')
    report = Report(workdir, start, steps, visible=first)
    stack.callback(report.close)
    trainer = _Trainer(session, workdir, feed, evaluator, checkpoints, report, meta, patience)
    with checkpoints.disk_errors():
      stopped = trainer.run(state, start)
    early = ''
    if stopped < steps:
      early = (
        f' early: no gain in {session.config.checkpoint.best} for {session.train.patience} '
        f'evaluations, the best {trainer.patience.best:.5g} is kept as step '
        f'{checkpoints.best_step()};'
      )
    report.say(f'finished{early} {_what_next(workdir, stopped, session)}')


def _exhausted(patience: Patience, options: Train) -> bool:
  return bool(options.patience) and patience.waited >= options.patience


def _restore_or_init(
  checkpoints: Checkpoints, session: Session, say: Callable[[str, str], None]
) -> tuple[State, int, dict[str, Any]]:
  """The newest whole checkpoint, its step and description; or the state at step 0."""
  found = checkpoints.restore(session.abstract)
  if found is None:
    state, source = session.init(), ''
    if session.config.init_from:
      rules = session.config.init_rules
      state, report = transfer(state, session.config.init_from, rules)
      source = report.source
      for line in report.lines():
        say('transfer', line)
    return state, 0, {'patience': list(Patience()), 'transferred_from': source}
  state, meta = found
  spec = session.spec
  if (meta['data'], meta['n']) != (spec.identity, spec.n):
    raise UserError(
      f'the run was made on other data ({meta["n"]} examples) than {spec.name} here ({spec.n}); '
      'point --config.data.data_dir at the data it was made on, or use another --workdir'
    )
  # Checkpoints of older versions lack these.
  since = {'patience': list(Patience()), 'transferred_from': ''}
  return state, int(meta['step']), {**since, **meta}


def _what_next(workdir: str, step: int, session: Session, how: str = '') -> str:
  script = 'sample.py' if session.objective.sample is not None else 'evaluate.py'
  by_epochs = session.train.steps < session.config.train.steps
  larger = 'epochs' if by_epochs else 'steps'
  if step < session.train.steps:
    larger = 'patience'
  return (
    f'step {step} of {session.train.steps}{how} in {workdir}; see what it learned with: '
    f'python {script} --workdir={workdir}; to go on, give a larger --config.train.{larger}'
  )


class _Trainer:
  """What one call of `train` holds while it runs."""

  def __init__(
    self,
    session: Session,
    workdir: str,
    feed: Feed,
    evaluator: evaluation.Evaluator,
    checkpoints: Checkpoints,
    report: Report,
    meta: Mapping[str, Any],
    patience: Patience,
  ):
    self.session, self.workdir, self.options = session, workdir, session.train
    self.feed, self.evaluator, self.checkpoints = feed, evaluator, checkpoints
    self.report, self.patience = report, patience
    self._transferred_from = meta['transferred_from']
    self.program = make_program(session, feed)
    self._sample = self._make_sample()
    self._intervals = (
      self.options.log_every,
      self.options.sample_every,
      self.options.evaluate_every,
      checkpoints.every,
    )
    self._rows: list[np.ndarray] = []  # read since the last log line
    self._timed_steps, self._timed_seconds = 0, 0.0  # likewise, without the compiling dispatch
    self._last_read = 0.0
    self._speed = 0.0

  def _make_sample(self) -> Callable[[State], jax.Array] | None:
    """The grid of a state, jitted; None where the objective draws nothing."""
    session = self.session
    if session.objective.sample is None:
      return None
    return jax.jit(
      lambda state: session.objective.sample(
        variables_for_sampling(state), stream_key(state.key, 'sample'), session.train.samples
      ),
      out_shardings=session.everywhere,
    )

  def run(self, state: State, start: int) -> int:
    """Dispatch by dispatch to the last step; metrics are read while the next one computes.

    Returns:
      The step it ended at: the last one, or an earlier one where patience ran out.
    """
    step, waiting = start, None
    ok = self._put(np.bool_(True))
    profile = Profile(self.session.config.profile, f'{self.workdir}/profile')
    with Interrupts() as interrupts, profile, jax.transfer_guard('disallow'):
      while step < self.options.steps:
        number, taken = self.feed.take(step * self.session.per_step, self._next_length(step))
        started = time.perf_counter()
        with profile.dispatch(step):
          state, ok, rows = self.program.dispatch(state, ok, taken, self._put(np.int32(number)))
        step += number
        if waiting is not None:
          self._read(*waiting)
        waiting = (step, number, rows, started)
        signalled = interrupts.received()
        if self._is_event(step) or signalled or profile.active or not self._speed:
          # The state itself is wanted, or the length of the next dispatch: no use running ahead.
          self._read(*waiting)
          waiting = None
          self._events(step, state)
        if signalled:
          self._leave(step, state, signalled)
        if _exhausted(self.patience, self.options):
          break
      self.checkpoints.wait()
    return step

  def _next_length(self, step: int) -> int:
    """Steps of the next dispatch: up to the next event, and for about DISPATCH_SECONDS.

    The compiled program and so every bit of the result are the same whatever this returns. On
    several processes it must be the same everywhere, so it does not look at the clock.
    """
    room = min(self.program.capacity, self.options.steps - step)
    room = min([room, *(every - step % every for every in self._intervals)])
    if jax.process_count() > 1:
      return room
    return max(1, min(room, round(self._speed * DISPATCH_SECONDS)))

  def _is_event(self, step: int) -> bool:
    return step >= self.options.steps or any(step % every == 0 for every in self._intervals)

  def _is_logged(self, step: int) -> bool:
    intervals = self.options.log_every, self.options.evaluate_every
    return step >= self.options.steps or any(step % every == 0 for every in intervals)

  def _read(self, step: int, number: int, rows: jax.Array, started: float) -> None:
    """Waits for one dispatch's metrics, and moves the bar."""
    rows = np.asarray(jax.device_get(rows))[:number]
    now = time.perf_counter()
    seconds = max(now - max(started, self._last_read), 1e-9)
    self._last_read = now
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
      self._stop_not_finite(step - number + int(bad[0]) + 1, rows[bad[0]])
    self._rows.append(rows)
    if self._speed:
      self._timed_steps += number
      self._timed_seconds += seconds
    self._speed = number / seconds
    metrics = dict(zip(self.program.names, rows[-1]))
    self.report.progress(step, self._pace(), metrics, self._is_logged(step))

  def _pace(self) -> float | None:
    """Steps per second since the last log line; None before the second dispatch."""
    return self._timed_steps / self._timed_seconds if self._timed_steps else None

  def _events(self, step: int, state: State) -> None:
    """Log, evaluate, sample, save: whatever is due at `step`."""
    last = step >= self.options.steps
    figures: dict[str, float] = {}
    speed = None
    if step % self.options.log_every == 0 or last:
      speed = self._pace()
      means = np.concatenate(self._rows).astype(np.float64).mean(axis=0)
      figures.update(zip(self.program.names, means))
      self._rows, self._timed_steps, self._timed_seconds = [], 0, 0.0
    evaluated: Mapping[str, float] = {}
    if step % self.options.evaluate_every == 0 or last:
      with jax.transfer_guard('allow'):
        evaluated = self.evaluator(variables_for_sampling(state), state.key)
      figures.update(evaluated)
      self._wait_for_a_gain(evaluated)
      last = last or _exhausted(self.patience, self.options)
    if figures:
      self.report.scalars(step, speed, figures)
    if self._sample is not None and (step % self.options.sample_every == 0 or last):
      self._show(step, np.asarray(jax.device_get(self._sample(state))))
    # Whatever was just evaluated may be the best so far.
    best = bool(self.session.config.checkpoint.best) and bool(evaluated)
    if step % self.checkpoints.every == 0 or last or best:
      self._save(step, state, evaluated)

  def _show(self, step: int, samples: np.ndarray) -> None:
    """Images as a grid, tokens as text."""
    if not np.issubdtype(samples.dtype, np.integer):
      self.report.samples(step, samples)
      return
    tokenizer = tokenization.from_json(self.session.spec.tokenizer)
    self.report.texts(step, [tokenizer.decode(row) for row in samples])

  def _wait_for_a_gain(self, evaluated: Mapping[str, float]) -> None:
    """Counts an evaluation towards an early stop."""
    best = self.session.config.checkpoint
    if not best.best:
      return
    if best.best not in evaluated:
      raise UserError(
        f'config.checkpoint.best={best.best} is no figure of an evaluation'
        f'{nearest(best.best, evaluated)}; there are: {", ".join(evaluated)}'
      )
    value = evaluated[best.best]
    self.patience = self.patience.after(value, best.best_mode, self.options.minimum_gain)

  def _save(self, step: int, state: State, evaluated: Mapping[str, float]) -> None:
    meta: dict[str, Any] = {
      'used': step * self.session.per_step,
      'seed': self.options.seed,
      'data': self.feed.spec.identity,
      'n': self.feed.spec.n,
      'config': to_plain(self.session.config),
      'versions': runtime.versions(),
      'patience': [*self.patience],
      'transferred_from': self._transferred_from,
    }
    with jax.transfer_guard('allow'):
      self.checkpoints.save(step, state, meta, evaluated)

  def _leave(self, step: int, state: State, number: int) -> NoReturn:
    self._save(step, state, {})
    self.checkpoints.wait()
    self.report.say(
      f'stopped  by {signal.Signals(number).name} at step {step} of {self.options.steps}, saved in '
      f'{self.workdir}; run the same command to go on'
    )
    sys.exit(128 + number)

  def _stop_not_finite(self, step: int, row: np.ndarray) -> NoReturn:
    """Raises UserError naming the first player, and the modules whose gradient is not finite."""
    values = dict(zip(self.program.names, row))
    own = {
      player.name: {k: v for k, v in values.items() if k.startswith(f'{player.name}/')}
      for player in self.session.objective.players
    }
    player = next(
      p for p in self.session.objective.players if not np.isfinite([*own[p.name].values()]).all()
    )
    norm = f'{player.name}/gradient_norm'
    modules = [
      module
      for module in player.moves
      if not np.isfinite(values.get(f'{norm}/{module}', values.get(norm)))
    ]
    saved = self.checkpoints.steps()
    raise UserError(
      f'training stopped at step {step}: the loss of player "{player.name}" is '
      f'{values[f"{player.name}/loss"]} and the gradient of {", ".join(modules) or "no module"} '
      f'is not finite; the last good checkpoint is {f"step {saved[-1]}" if saved else "none"}; '
      'in a new --workdir, try lower learning rates in config.optimizer, or clip=1.0 there'
    )

  def _put(self, value: np.generic) -> jax.Array:
    return jax.device_put(value, self.session.everywhere)
