"""The training loop: the only one, for every family and any number of lanes."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

import files
from data.feed import Feed
from data.resident import Resident
from engine import distributed, run, summaries
from engine.build import to_plain
from engine.checkpoint import Checkpoints, Refusal
from engine.diagnosis import Diagnoses
from engine.evaluation import Evaluators
from engine.evaluation_cost import Stopwatch
from engine.feeds import open_feed
from engine.interrupts import Interrupts
from engine.lanes import take_lane
from engine.memory import memory_errors
from engine.metadata import checkpoint_meta
from engine.metric_rows import weighted_means
from engine.optimizers import build_optimizers, changed_rates
from engine.patience import Patience
from engine.preflight import LaneSampler, preflight
from engine.profile import Profile
from engine.program import Traced, make_program
from engine.report import Report, Shown, last_step, logged_lines, show, warn
from engine.session import Session
from engine.state import State, weights
from engine.train_options import run_length, train_options
from engine.transfer import Transfer, transfer
from errors import UserError, choose

# A dispatch aims at this many seconds for each lane, and at no more than the second number: long
# enough that neither the host nor the change between lanes, which copies their states, costs
# anything, short enough that the bar moves and Ctrl-C is heard.
DISPATCH_SECONDS, MOST_DISPATCH_SECONDS = 0.5, 2.0
# The exit code of a run whose last save the disk refused; sysexits.h has it as EX_IOERR.
NOT_SAVED = 74
Say = Callable[[str, str], None]


@memory_errors(
  'a smaller config.data.batch_size, a larger config.train.accumulate (microbatches of an update), '
  'smaller modules, config.data.resident_mb=0, a smaller batch_size of the evaluators'
)
def train(config: ConfigDict, workdir: str) -> None:
  """Trains `config` in `workdir`, from its newest checkpoint if there is one, to the last step.

  Raises:
    UserError: the config, the folder, the data or the devices do not allow it, or the training
      stopped being finite.
    SystemExit: 130 or 143 after Ctrl-C or SIGTERM, with everything saved; `NOT_SAVED` where the
      last save was refused.
  """
  session, evaluators, best, traced, sampler = preflight(config, workdir)
  lanes, steps = session.lanes.number, session.train.steps
  kept = {**to_plain(config.checkpoint), 'best': best}
  checkpoints = Checkpoints(workdir, **kept, lanes=lanes)
  first = jax.process_index() == 0

  def say(what: str, line: str) -> None:
    if first:
      show(f'{what:9}{line}')

  say('devices', summaries.devices(session.mesh))
  with ExitStack() as stack:
    if first:
      stack.enter_context(run.only_writer(workdir))
      for line in run.changes(workdir, config, session.spec):
        say('changed', line)
    stack.callback(_close, checkpoints)
    state, start, meta = _restore_or_init(checkpoints, workdir, session, say)
    if first:  # not before, so that what is refused leaves the run as it was
      run.claim(workdir, config, session.spec, steps)
    distributed.check_sees(files.path(workdir) / run.CONFIG, f'--workdir={workdir}')
    for line in _changed_schedule(session, start, meta):
      say('changed', line)
    patience = [Patience(*each) for each in meta['patience']]
    if start >= steps or all(each.exhausted(session.train.patience) for each in patience):
      early = ' (stopped early)' if start < steps else ''
      say('complete', _what_next(workdir, start, session, early))
      return
    feed = open_feed(session, start)
    stack.callback(feed.close)
    say('data', summaries.data(session.spec, isinstance(feed, Resident)))
    say('modules', summaries.modules(session.lane_abstract, lanes))
    for reason in evaluators[0].refused.values():
      say('note', f'evaluate.py will refuse this: {reason}')
    say(
      'figures',
      f'of players: means since the last multiple of {session.train.log_every} steps; of '
      'evaluators: of the step',
    )
    if start:
      say('resumed', f'from step {start} of {steps} in {workdir}')
    shown = Shown(
      session.lanes.labels,
      evaluators[0].names,
      session.spec.tokenizer,
      summaries.options(config),
      best,
      to_plain(config.report.trackers),
    )
    report = Report(workdir, start, steps, shown, visible=first)
    stack.callback(report.close)
    before = logged_lines(workdir) if start else []
    diagnoses = Diagnoses(session, feed, workdir, sampler, report.say, before)
    trainer = _Trainer(
      session,
      workdir,
      feed,
      evaluators,
      checkpoints,
      report,
      meta['transferred_from'],
      patience,
      traced,
      sampler,
      diagnoses,
    )
    with checkpoints.disk_errors():
      stopped = trainer.run(state, start)
    saved = trainer.wait_until_saved(stopped)
    if saved:
      report.say(f'finished{trainer.why_early(stopped)} {_what_next(workdir, stopped, session)}')
    diagnoses.say_lasting()
    if not saved:
      trainer.leave_unsaved(stopped)


def _close(checkpoints: Checkpoints) -> None:
  """Closes them at the end of a run, which may be another error's."""
  try:
    checkpoints.close()
  except UserError as error:
    warn(f'warning: {error}')


def _restore_or_init(
  checkpoints: Checkpoints, workdir: str, session: Session, say: Say
) -> tuple[State, int, dict[str, Any]]:
  """The newest whole checkpoint, its step and description; or the state at step 0."""
  found = checkpoints.restore(session.abstract)
  if found is not None:
    state, meta = found
    run.check_origin(workdir, meta, session.config)
    spec = session.spec
    if (meta['data'], meta['n']) != (spec.identity, spec.n):
      raise run.other_examples(meta['n'], spec)
    return state, int(meta['step']), meta
  _check_fresh(checkpoints, say)
  state = session.init()
  reports: list[Transfer] = []
  if session.sources:
    state, reports = transfer(state, session)
  for report in reports:
    for line in report.lines():
      say('transfer', line)
  patience = [[*Patience()]] * session.lanes.number
  sources = [report.source for report in reports]
  return state, 0, {'patience': patience, 'transferred_from': sources}


def _check_fresh(checkpoints: Checkpoints, say: Say) -> None:
  """Says or refuses that a run without any checkpoint starts again where it has logged steps.

  One that was killed before its first checkpoint starts again; checkpoints that were there and are
  gone are a loss that its owner should know of.
  """
  folder = checkpoints.folder.parent
  logged = last_step(folder)
  if not logged:
    return
  damaged = bool(checkpoints.set_aside)
  # A run may have gone far without one: the disk refuses, and it goes on.
  saved = run.has_saved(str(folder))
  if saved and not damaged and not files.entries(checkpoints.folder):
    raise UserError(
      f'{folder} holds a run that reached step {logged}, and its checkpoints, which were in '
      f'{checkpoints.folder}, are gone; put them back, choose another --workdir, or delete '
      f'{folder} to start again'
    )
  reason = 'all its checkpoints are damaged' if damaged else 'it had saved no checkpoint yet'
  say('restart', f'from step 0: the run reached step {logged}, but {reason}')


def _changed_schedule(session: Session, start: int, meta: Mapping[str, Any]) -> list[str]:
  """A line for each optimizer whose learning rate jumps where a run of another length goes on."""
  if not start:
    return []
  before = ConfigDict(meta['config'])
  steps = run_length(train_options(before), meta['n'], session.per_step)
  if steps == session.train.steps:
    return []
  optimizers = build_optimizers(to_plain(before.optimizer), session.objective, steps)
  return [
    f'learning rate of {each.optimizer} at step {start}: {each.before:.3g} → {each.after:.3g}, '
    f'since its schedule spans the run, which had {steps} steps and now has {session.train.steps}'
    for each in changed_rates(optimizers, session.optimizers, start)
  ]


def _what_next(workdir: str, step: int, session: Session, how: str = '') -> str:
  script = 'evaluate.py' if session.objective.sampler is None else 'sample.py'
  by_epochs = session.train.steps < session.config.train.steps
  larger = 'epochs' if by_epochs else 'steps'
  if step < session.train.steps:
    larger = 'patience'
  return (
    f'step {step} of {session.train.steps}{how} in {workdir}; see what it learned with: '
    f'python {script} --workdir={workdir}; to go on, give a larger --config.train.{larger}'
  )


class _Trainer:
  """The state of one call of `train` while it runs."""

  def __init__(
    self,
    session: Session,
    workdir: str,
    feed: Feed,
    evaluators: Sequence[Evaluators],
    checkpoints: Checkpoints,
    report: Report,
    transferred_from: Sequence[str],
    patience: list[Patience],
    traced: Traced,
    sampler: LaneSampler | None,
    diagnoses: Diagnoses,
  ):
    self.session, self.workdir, self.options = session, workdir, session.train
    self.feed, self.evaluators, self.checkpoints = feed, evaluators, checkpoints
    self.report, self.patience = report, patience
    self._transferred_from = transferred_from
    self.program = make_program(session, feed, traced)
    self._sampler, self._diagnoses = sampler, diagnoses
    self._log_intervals = (self.options.log_every, *evaluators[0].intervals)
    self._intervals = (*self._log_intervals, self.options.sample_every, checkpoints.every)
    self._rows: list[np.ndarray] = []  # read since the last log line
    self._timed_steps, self._timed_seconds = 0, 0.0  # likewise, without the compiling dispatch
    self._last_read = 0.0
    self._speed = 0.0
    self._until_shared = 0  # dispatches
    # Whether run.json says that a checkpoint is on disk, and whether that was refused.
    self._noted = self._note_refused = False
    self._costed: set[str] = set()  # evaluators whose cost was measured

  def run(self, state: State, start: int) -> int:
    """Dispatch by dispatch to the last step; metrics are read while the next one computes.

    Returns:
      The step it ended at: the last one, or an earlier one where every lane's patience ran out.
    """
    step, waiting = start, None
    self._state = state
    ok = self._put(np.bool_(True))
    profile = Profile(self.session.config.profile, str(files.path(self.workdir) / 'profile'))
    with Interrupts() as interrupts, profile, jax.transfer_guard('disallow'):
      while step < self.options.steps:
        number, taken = self.feed.take(step * self.session.per_step, self._next_length(step))
        started = time.perf_counter()
        with profile.dispatch(step):
          state, ok, rows = self.program.dispatch(
            state, ok, taken, self._put(np.int32(number)), self._put(self._active())
          )
        self._state = state  # for a diagnosis; what it held was donated
        self._diagnoses.took(taken, number)
        step += number
        if waiting is not None:
          self._read(*waiting)
        waiting = (step, number, rows, started)
        signalled = interrupts.received()
        if self._is_event(step) or signalled or profile.active or not self._speed:
          # The state itself is needed, or the length of the next dispatch: no use running ahead.
          self._read(*waiting)
          waiting = None
          self._events(step, state)
        if signalled:
          self._leave(step, state, signalled)
        if not self._active().any():
          break
      # A signal that comes now is too late to change anything.
      self.checkpoints.wait()
    return step

  def _active(self) -> np.ndarray:
    """Which lanes still train, bool [L]."""
    return np.array([not each.exhausted(self.options.patience) for each in self.patience])

  def _next_length(self, step: int) -> int:
    """Steps of the next dispatch: up to the next event, and for about DISPATCH_SECONDS a lane.

    The compiled program and so every bit of the result are the same whatever this returns. On
    several processes it is the same everywhere, since the speed is that of the first.
    """
    room = min(self.program.capacity, self.options.steps - step)
    room = min([room, *(every - step % every for every in self._intervals)])
    seconds = min(DISPATCH_SECONDS * len(self.patience), MOST_DISPATCH_SECONDS)
    return max(1, min(room, round(self._speed * seconds)))

  def _is_event(self, step: int) -> bool:
    return step >= self.options.steps or any(step % every == 0 for every in self._intervals)

  def _is_logged(self, step: int) -> bool:
    return step >= self.options.steps or any(step % every == 0 for every in self._log_intervals)

  def _read(self, step: int, number: int, reported: jax.Array, started: float) -> None:
    """Waits for one dispatch's metrics, and moves the bar."""
    rows = np.asarray(jax.device_get(reported))[:, :number]  # [L, steps, M, 2]
    now = time.perf_counter()
    seconds = max(now - max(started, self._last_read), 1e-9)
    self._last_read = now
    bad = np.argwhere(~np.isfinite(rows).all(axis=(2, 3)).T)
    if bad.size:
      at, lane = bad[0]
      self._rows.append(rows[:, : at + 1])
      self._stop_not_finite(step - number + int(at) + 1, int(lane))
    self._rows.append(rows)
    if self._speed:
      self._timed_steps += number
      self._timed_seconds += seconds
    self._speed = self._shared_speed(number, number / seconds)
    figures = self._means()
    self.report.progress(step, self._pace(), figures, self._is_logged(step))

  def _shared_speed(self, number: int, speed: float) -> float:
    """The speed of the last dispatch, on several processes as the first one measured it.

    These ask for it about twice a second, by counts of dispatches that are the same in all.

    Args:
      number: steps of the dispatch.
      speed: steps per second that this process has measured.
    """
    if jax.process_count() == 1:
      return speed
    self._until_shared -= 1
    if self._until_shared > 0:
      return self._speed
    speed = distributed.of_first('speed', speed)
    self._until_shared = round(DISPATCH_SECONDS * speed / number)
    return speed

  def _means(self) -> list[dict[str, float]]:
    """The mean of every metric over the steps since the last line of the log, of each lane."""
    return weighted_means(np.concatenate(self._rows, axis=1), self.program.names)

  def _pace(self) -> float | None:
    """Steps per second since the last log line; None before the second dispatch."""
    return self._timed_steps / self._timed_seconds if self._timed_steps else None

  def _events(self, step: int, state: State) -> None:
    """Log, evaluate, sample, save: whatever is due at `step`."""
    self.checkpoints.look()
    self._hear_of_saves(step, ends=False)
    last = step >= self.options.steps
    means: list[dict[str, float]] = [{} for _ in self.patience]
    speed = None
    if step % self.options.log_every == 0 or last:
      speed = self._pace()
      means = self._means()
      self._rows, self._timed_steps, self._timed_seconds = [], 0, 0.0
    due = self.evaluators[0].due(step, last)
    evaluated = self._evaluate(due, state)
    figures = [{**mine, **more} for mine, more in zip(means, evaluated or [{}] * len(means))]
    ranked = self._ranking_evaluator() in due
    if ranked:
      self._wait_for_a_gain(step, evaluated)
      last = last or not self._active().any()
    if any(figures):
      self.report.scalars(step, speed, figures)
    sampler, drawn = self._sampler, None
    if sampler is not None and (step % self.options.sample_every == 0 or last):
      drawn = self._samples(sampler, state)
      self.report.samples(step, sampler.feature, drawn)
    self._diagnoses.look(step, state, means, evaluated, drawn)
    # What was just evaluated may be the best so far.
    if step % self.checkpoints.every == 0 or last or ranked:
      self._save(step, state, evaluated, ends=last)

  def _ranking_evaluator(self) -> str:
    """The evaluator whose figure ranks checkpoints; '' for none."""
    return self.checkpoints.best.split('/')[0]

  def _evaluate(self, due: Sequence[str], state: State) -> list[dict[str, float]]:
    """The figures of the evaluators that are due, of each lane; [] where none is."""
    if not due:
      return []
    with jax.transfer_guard('allow'):
      return [self._evaluate_lane(due, state, lane) for lane in range(len(self.patience))]

  def _evaluate_lane(self, due: Sequence[str], state: State, lane: int) -> dict[str, float]:
    held = take_lane(weights(state), lane, len(self.patience))
    key = jax.random.key(int(self.session.lanes.seeds[lane]))
    results = []
    for name in due:
      stopwatch = None if name in self._costed else Stopwatch()
      results.append(self.evaluators[lane].evaluate(name, held, key, progress=stopwatch))
      # The speed is known from the second dispatch on.
      if stopwatch is not None and self._speed:
        self._costed.add(name)
        note = self.evaluators[lane].cost_note(name, stopwatch, self._speed, len(self.patience))
        if note:
          self.report.say(f'note     {note}')
    return {name: figure.mean for each in results for name, figure in each.figures.items()}

  def _samples(self, sampler: LaneSampler, state: State) -> list[np.ndarray]:
    """Samples of every lane."""
    number = len(self.patience)
    with jax.transfer_guard('allow'):
      lanes = [take_lane(weights(state), lane, number) for lane in range(number)]
      seeds = self.session.lanes.seeds
      drawn = [sampler.draw(held, int(seed)) for held, seed in zip(lanes, seeds)]
    # Without waiting, where memory runs out the process is aborted while it reads.
    return [np.asarray(jax.device_get(jax.block_until_ready(samples))) for samples in drawn]

  def _wait_for_a_gain(self, step: int, evaluated: Sequence[Mapping[str, float]]) -> None:
    """Counts an evaluation towards an early stop of each lane that still trains."""
    mode = self.session.config.checkpoint.best_mode
    for lane, (figures, active) in enumerate(zip(evaluated, self._active())):
      value = choose(figures, self.checkpoints.best, 'config.checkpoint.best')
      if active:
        self.patience[lane] = self.patience[lane].after(
          value, step, mode, self.options.minimum_gain
        )

  def why_early(self, stopped: int) -> str:
    """Returns the words for a run that ended at an earlier step than its last; '' for others."""
    if stopped >= self.options.steps:
      return ''
    kept = ', '.join(
      f'{each.best:.5g} of step {each.best_step}' for each in self.patience if each.best is not None
    )
    return (
      f' early: no gain in {self.checkpoints.best} for {self.options.patience} '
      f'evaluations, the best was {kept or "never defined"};'
    )

  def _save(
    self, step: int, state: State, evaluated: Sequence[Mapping[str, float]], ends: bool
  ) -> None:
    """Begins to save; `ends` is whether the run ends with this step."""
    meta = checkpoint_meta(self.session, step, self.patience, self._transferred_from)
    if jax.process_index() == 0:
      run.check_still_there(self.workdir)
    with jax.transfer_guard('allow'):
      self.checkpoints.save(step, state, meta, evaluated)
    self._hear_of_saves(step, ends)

  def _hear_of_saves(self, step: int, ends: bool) -> None:
    """Says which saves the disk has refused, and notes in run.json that there is a checkpoint.

    Args:
      step: where the run is.
      ends: whether it ends there.
    """
    refusals = self.checkpoints.refusals()
    if jax.process_index():
      return
    for refused in refusals:
      warn(f'warning: {self._told(refused)}; {self._next_try(step, ends)}')
    if not self._noted and self.checkpoints.steps():
      self._noted = self._note_saved()

  def _told(self, refused: Refusal) -> str:
    if refused.whole:
      return (
        f'the checkpoint of step {refused.step} is saved in {self.workdir}, but older ones could '
        f'not be deleted: {refused.reason}'
      )
    return f'THE CHECKPOINT OF STEP {refused.step} IS NOT SAVED in {self.workdir}: {refused.reason}'

  def _next_try(self, step: int, ends: bool) -> str:
    """Says that the run goes on after a refused save, and at which step it saves again."""
    if ends:
      return 'the run ends here'
    saved = self.checkpoints.steps()
    newest = f'that of step {saved[-1]}' if saved else 'none, so that it would start from step 0'
    again = min(self.options.steps, (step // self.checkpoints.every + 1) * self.checkpoints.every)
    return f'training goes on, the newest checkpoint is {newest}; step {again} is saved next'

  def _note_saved(self) -> bool:
    """Notes in run.json that a checkpoint is on disk; whether that could be written."""
    try:
      if not run.has_saved(self.workdir):
        run.note_saved(self.workdir)
    except UserError as error:
      if not self._note_refused:
        warn(f'warning: {error}; training goes on')
      self._note_refused = True
      return False
    return True

  def wait_until_saved(self, step: int) -> bool:
    """Returns, when the last save has ended, whether the checkpoint of `step` is on disk."""
    self.checkpoints.wait()
    self._hear_of_saves(step, ends=True)
    return self.checkpoints.is_saved(step)

  def leave_unsaved(self, step: int) -> NoReturn:
    """Ends the run where its last save was refused."""
    saved = self.checkpoints.steps()
    if jax.process_index() == 0:
      warn(
        f'error: step {step} of {self.options.steps} could not be saved in {self.workdir}; make '
        'room or let it be written, then the same command goes on from '
        f'{f"step {saved[-1]}" if saved else "the beginning"}'
      )
    sys.exit(NOT_SAVED)

  def _leave(self, step: int, state: State, number: int) -> NoReturn:
    self._save(step, state, [], ends=True)
    if not self.wait_until_saved(step):
      self.leave_unsaved(step)
    self.report.say(
      f'stopped  by {signal.Signals(number).name} at step {step} of {self.options.steps}, saved in '
      f'{self.workdir}; run the same command to go on'
    )
    sys.exit(128 + number)

  def _stop_not_finite(self, step: int, lane: int) -> NoReturn:
    """Raises UserError naming the first player, and the modules whose gradient is not finite."""
    rows = np.concatenate(self._rows, axis=1)[lane]
    values = dict(zip(self.program.names, rows[-1, :, 0]))
    own = {
      player.name: {k: v for k, v in values.items() if k.startswith(f'{player.name}/')}
      for player in self.session.objective.players
    }
    player = next(
      p for p in self.session.objective.players if not np.isfinite([*own[p.name].values()]).all()
    )
    norm = f'{player.name}/gradient_norm'
    # A player of one module has one norm, without the module's name.
    norms = {
      module: f'{norm}/{module}' if f'{norm}/{module}' in values else norm
      for module in player.moves
    }
    modules = [module for module, name in norms.items() if not np.isfinite(values[name])]
    saved = self.checkpoints.steps()
    where = f' of lane {lane} ({self.session.lanes.labels[lane]})' if len(self.patience) > 1 else ''
    diagnosed = self._diagnoses.stopped(
      step, lane, player.name, rows, self.program.names, self._state
    )
    raise UserError(
      f'training stopped at step {step}{where}: the loss of player "{player.name}" is '
      f'{values[f"{player.name}/loss"]} and the gradient of {", ".join(modules) or "no module"} '
      f'is not finite; the last good checkpoint is {f"step {saved[-1]}" if saved else "none"}; '
      f'{diagnosed}'
    )

  def _put(self, value: Any) -> jax.Array:
    return jax.device_put(value, self.session.replicated)
