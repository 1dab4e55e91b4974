"""The training loop: the only one, for every family."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from data.transforms import prepare
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from data import feed as feeds
from data.source import open_source
from engine import run, runtime, session, sharding
from engine.build import call, to_plain
from engine.checkpoint import Checkpoints
from engine.evaluation import Evaluator
from engine.report import Report
from engine.state import State, stream_key, variables_for_sampling
from engine.step import examples_per_step, make_step
from errors import UserError

# A dispatch aims at this many seconds: long enough that the host costs nothing, short enough that
# the bar moves and Ctrl-C is heard.
DISPATCH_SECONDS = 0.5


class Program(NamedTuple):
  """The compiled training program.

  Attributes:
    dispatch: `(state, ok, taken, steps) -> (state, ok, rows)`; `rows` is float32 [dispatch, M],
      one row a step. Stops by itself after a step that is not finite, and then `ok` is False.
    names: of the M columns.
  """

  dispatch: Callable
  names: tuple[str, ...]


def train(config: ConfigDict, workdir: str) -> None:
  """Trains `config` in `workdir`, from its newest checkpoint if there is one, to the last step.

  Raises:
    UserError: the config, the folder, the data or the devices do not allow it, or the training
      stopped being finite.
    SystemExit: 130 or 143 after Ctrl-C or SIGTERM, with everything saved.
  """
  session.check_sections(config)
  options, data = session.train_options(config), session.data_options(config)
  mesh = call(sharding.make_mesh, to_plain(config.mesh), 'config.mesh')
  first = jax.process_index() == 0
  say = _say if first else lambda line: None
  say(f'devices  {_describe_devices(mesh)}')
  source = open_source(data.name, data.split, data.data_dir)
  objective = session.build_objective(config, source.spec)
  make_state = session.state_maker(config, objective, source.spec)
  abstract = session.abstract_state(make_state, config, mesh)
  sharding.check_batch(data.batch_size, options.accumulate, mesh)
  checkpoints = call(Checkpoints, to_plain(config.checkpoint), 'config.checkpoint', workdir)
  with ExitStack() as stack:
    if first:
      stack.enter_context(run.only_writer(workdir))
      for line in run.claim(workdir, config, source.spec.to_json()):
        say(f'changed  {line}')
    stack.callback(checkpoints.close)
    found = checkpoints.restore(abstract)
    if found is None:
      state, start = jax.jit(make_state, out_shardings=_places(abstract))(), 0
    else:
      state, meta = found
      start = int(meta['step'])
      _check_meta(meta, source.spec, start * examples_per_step(objective, data.batch_size))
    if start >= options.steps:
      say(
        f'complete {workdir} is at step {start} of {options.steps}; draw samples with: '
        f'python sample.py --workdir={workdir}, or go on with a larger --config.train.steps'
      )
      return
    feed = feeds.open_feed(
      source=source,
      batch_size=examples_per_step(objective, data.batch_size),
      seed=options.seed,
      resident_mb=data.resident_mb,
      workers=data.workers,
      mesh=mesh,
    )
    stack.callback(feed.close)
    say(f'data     {_describe_data(source.spec, feed)}')
    say(f'modules  {_describe_modules(abstract)}')
    if start:
      say(f'resumed  from step {start} of {options.steps} in {workdir}')
    trainer = _Trainer(config, workdir, objective, feed, checkpoints, mesh, abstract, start, first)
    stack.callback(trainer.report.close)
    trainer.run(state)


class _Trainer:
  """What one call of `train` holds while it runs."""

  def __init__(self, config, workdir, objective, feed, checkpoints, mesh, abstract, start, first):
    self.config, self.workdir, self.objective = config, workdir, objective
    self.feed, self.checkpoints, self.mesh, self.start = feed, checkpoints, mesh, start
    self.options, self.data = session.train_options(config), session.data_options(config)
    self.chains = session.build_optimizers(config, objective)
    self.per_step = examples_per_step(objective, self.data.batch_size)
    self.report = Report(workdir, start, self.options.steps, visible=first)
    self.root_key = jax.random.key(self.options.seed)
    self.program = make_program(
      objective, self.chains, config, feed, abstract, self.data, self.options
    )
    self._sample = jax.jit(
      lambda state, key: objective.sample(variables_for_sampling(state), key, self.options.samples)
    )
    self._evaluator: Evaluator | None = None
    self._speed = 0.0

  def run(self, state: State) -> None:
    """Dispatch by dispatch to the last step; metrics are read while the next one computes."""
    step, ok, waiting, window = self.start, self._put(np.bool_(True)), None, []
    stop = _StopSignals()
    with stop, jax.transfer_guard('disallow'), _Profile(self.config, self.workdir) as profile:
      while step < self.options.steps:
        with profile.step(step - self.start):
          number, taken = self.feed.take(step * self.per_step, self._next_length(step))
          started = time.perf_counter()
          state, ok, rows = self.program.dispatch(state, ok, taken, self._put(np.int32(number)))
        step += number
        if waiting is not None:
          self._read(waiting, window)
        waiting = (step, number, rows, started)
        if self._is_event(step) or stop.received or profile.active:
          # The device has to finish anyway: the state itself is wanted.
          self._read(waiting, window)
          waiting = None
          self._events(step, state, window)
        if stop.received:
          self._leave(step, state, stop.received)
      self.checkpoints.wait()
    self.report.say(
      f'finished {self.workdir} at step {step}; draw samples with: '
      f'python sample.py --workdir={self.workdir}'
    )

  def _next_length(self, step: int) -> int:
    """Steps of the next dispatch: up to the next event, and for about DISPATCH_SECONDS.

    The compiled program and so every bit of the result are the same whatever this returns. On
    several processes it must be the same everywhere, so it does not look at the clock.
    """
    room = min(self.options.dispatch, self.options.steps - step)
    for every in self._intervals():
      room = min(room, every - step % every)
    if jax.process_count() > 1:
      return room
    if not self._speed:
      return 1
    return max(1, min(room, round(self._speed * DISPATCH_SECONDS)))

  def _intervals(self) -> tuple[int, ...]:
    o = self.options
    return (o.log_every, o.sample_every, o.evaluate_every, self.checkpoints.every)

  def _is_event(self, step: int) -> bool:
    return step >= self.options.steps or any(step % every == 0 for every in self._intervals())

  def _read(self, waiting, window: list) -> None:
    """Waits for one dispatch's metrics and adds them to `window`, [(rows, seconds)]."""
    step, number, rows, started = waiting
    rows = np.asarray(jax.device_get(rows))[:number]
    now = time.perf_counter()
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
      self._stop_not_finite(step - number + int(bad[0]), rows[bad[0]])
    seconds = now - max(started, self._last_read if window else started)
    self._last_read = now
    window.append((rows, seconds))
    if step - self.start > 1:
      self._speed = number / max(seconds, 1e-9)
    total = sum(len(r) for r, _ in window) / max(sum(s for _, s in window), 1e-9)
    self.report.progress(step, total, dict(zip(self.program.names, rows[-1])))

  def _events(self, step: int, state: State, window: list) -> None:
    """Log, evaluate, sample, save: whatever is due at `step`."""
    last = step >= self.options.steps
    figures: dict[str, float] = {}
    speed = None
    if window and (step % self.options.log_every == 0 or last):
      rows = np.concatenate([rows for rows, _ in window])
      speed = len(rows) / max(sum(seconds for _, seconds in window), 1e-9)
      figures.update(zip(self.program.names, rows.astype(np.float64).mean(axis=0)))
      window.clear()
    evaluated: Mapping[str, float] = {}
    if step % self.options.evaluate_every == 0 or last:
      evaluated = self._evaluate(state)
      figures.update(evaluated)
    if figures:
      self.report.scalars(step, speed, figures)
    if step % self.options.sample_every == 0 or last:
      images = jax.device_get(self._sample(state, self._stream('sample')))
      self.report.samples(step, np.asarray(images))
    best = bool(self.config.checkpoint.best) and bool(evaluated)
    if step % self.checkpoints.every == 0 or last or best:
      self._save(step, state, evaluated)

  def _evaluate(self, state: State) -> Mapping[str, float]:
    with jax.transfer_guard('allow'):
      if self._evaluator is None:
        self._evaluator = make_evaluator(self.config, self.objective, self.mesh)
      return self._evaluator(variables_for_sampling(state))

  def _save(self, step: int, state: State, evaluated: Mapping[str, float]) -> None:
    meta = {
      'used': step * self.per_step,
      'seed': self.options.seed,
      'data': self.feed.spec.identity,
      'n': self.feed.spec.n,
      'config': to_plain(self.config),
      'versions': runtime.versions(),
    }
    with jax.transfer_guard('allow'):
      self.checkpoints.save(step, state, meta, evaluated)

  def _leave(self, step: int, state: State, number: int) -> None:
    if step < self.options.steps:
      self._save(step, state, {})
    self.checkpoints.wait()
    self.report.say(
      f'stopped  by {signal.Signals(number).name} at step {step} of {self.options.steps}, saved in '
      f'{self.workdir}; run the same command to go on'
    )
    sys.exit(128 + number)

  def _stop_not_finite(self, step: int, row: np.ndarray) -> None:
    """Raises UserError naming the first player, and the modules whose gradient is not finite."""
    values = dict(zip(self.program.names, row))
    for player in self.objective.players:
      own = {k: v for k, v in values.items() if k.startswith(f'{player.name}/')}
      if all(np.isfinite(v) for v in own.values()):
        continue
      modules = [
        module
        for module in player.moves
        if not np.isfinite(_gradient_norm(own, player.name, module))
      ]
      saved = self.checkpoints.steps()
      raise UserError(
        f'training stopped at step {step}: the loss of player "{player.name}" is '
        f'{own[f"{player.name}/loss"]} and the gradient of '
        f'{", ".join(modules) if modules else "no module"} is not finite; the last good checkpoint '
        f'is {f"step {saved[-1]}" if saved else "none"}; try a lower '
        f'--config.optimizer.{player.name}.learning_rate in a new --workdir, or '
        f'--config.optimizer.{player.name}.clip=1.0'
      )
    raise UserError(f'training stopped at step {step}: a metric is not finite ({values})')

  def _stream(self, name: str) -> jax.Array:
    with jax.transfer_guard('allow'):
      return stream_key(self.root_key, name)

  def _put(self, value: np.generic) -> jax.Array:
    return jax.device_put(value, NamedSharding(self.mesh, PartitionSpec()))


def make_program(objective, chains, config, feed, abstract, data, options) -> Program:
  """Compiles nothing yet: returns the jitted loop over steps and the names of its metrics.

  The trip count is an argument, so that one compiled program serves every length: how a run was
  cut into dispatches, or killed and resumed, cannot change what a step computes.
  """
  step = make_step(objective, chains, to_plain(config.ema), options.accumulate, data.batch_size)
  augment = data.augment

  def one(state: State, taken: Any, i: jax.Array):
    batch = prepare(feed.batch(taken, i), stream_key(state.key, 'data'), augment)
    return step(state, batch)

  names: list[str] = []

  def dispatch(state: State, ok: jax.Array, taken: Any, steps: jax.Array):
    def body(carry):
      i, state, rows, _ = carry
      state, metrics = one(state, taken, i)
      names[:] = sorted(metrics)
      row = jnp.stack([metrics[name].astype(jnp.float32) for name in names])
      return i + 1, state, rows.at[i].set(row), jnp.isfinite(row).all()

    width = len(jax.eval_shape(lambda: one(state, taken, jnp.int32(0))[1]))
    rows = jnp.zeros((options.dispatch, width), jnp.float32)
    carry = (jnp.int32(0), state, rows, ok)
    _, state, rows, ok = jax.lax.while_loop(lambda c: (c[0] < steps) & c[3], body, carry)
    return state, ok, rows

  everywhere = jax.tree.leaves(_places(abstract))[0].mesh
  whole = NamedSharding(everywhere, PartitionSpec())
  jitted = jax.jit(
    dispatch,
    donate_argnums=(0, 1),
    out_shardings=(_places(abstract), whole, whole),
    compiler_options=dict(runtime.compiler_options()),
  )
  return Program(jitted, names)


def make_evaluator(config: ConfigDict, objective, mesh: Mesh) -> Evaluator:
  """The evaluator of a config on its test split."""
  data = session.data_options(config)
  source = open_source(data.name, data.test_split, data.data_dir)
  key = stream_key(jax.random.key(session.train_options(config).seed), 'evaluate')
  off = {name: type(value)(0) for name, value in data.augment.items()}
  return Evaluator(
    objective,
    config.evaluate,
    lambda size: feeds.in_order(source, size, jax.process_index(), jax.process_count()),
    lambda batch: prepare(batch, key, off),
    mesh,
    key,
  )


def _gradient_norm(values: Mapping[str, float], player: str, module: str) -> float:
  return values.get(f'{player}/gradient_norm/{module}', values.get(f'{player}/gradient_norm'))


def _places(abstract: State) -> Any:
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _check_meta(meta: Mapping[str, Any], spec, used: int) -> None:
  if meta['data'] != spec.identity or meta['n'] != spec.n:
    raise UserError(
      f'the run was made on other data ({meta["n"]} examples) than {spec.name} here ({spec.n}); '
      'point --config.data.data_dir at the data it was made on, or use another --workdir'
    )
  if meta['used'] != used:
    raise UserError(f'the checkpoint has used {meta["used"]} examples, this config {used}')


def _say(line: str) -> None:
  print(line, flush=True)


def _describe_devices(mesh: Mesh) -> str:
  device = mesh.devices.flat[0]
  shape = ' × '.join(f'{name} {size}' for name, size in mesh.shape.items())
  return f'{mesh.devices.size} × {device.device_kind} ({device.platform}), mesh {shape}'


def _describe_data(spec, feed) -> str:
  shape = ' × '.join(map(str, spec.features['image'][0])) if 'image' in spec.features else ''
  classes = f', {spec.num_classes} classes' if spec.num_classes else ''
  return f'{spec.name} {spec.split}: {spec.n:,} examples {shape}{classes}, {feed.description}'


def _describe_modules(abstract: State) -> str:
  counts = {
    module: sum(leaf.size for leaf in jax.tree.leaves(tree))
    for module, tree in abstract.params.items()
  }
  parts = ', '.join(f'{module} {count:,}' for module, count in counts.items())
  return f'{parts} parameters'


class _StopSignals:
  """Notes SIGINT and SIGTERM; a second one acts at once. `received` is the signal, or 0."""

  def __enter__(self):
    self.received = 0
    self._before = {}
    if jax.process_count() > 1:
      # JAX's own preemption notice must get the signal on a pod.
      return self
    for number in (signal.SIGINT, signal.SIGTERM):
      self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    self.received = number
    for other, handler in self._before.items():
      signal.signal(other, handler)
    print('\nstopping after this dispatch, then saving…', file=sys.stderr, flush=True)


class _Profile:
  """With `config.profile`, a trace of dispatches 2 to 4, once everything is compiled."""

  def __init__(self, config: ConfigDict, workdir: str):
    self._folder = f'{workdir}/profile' if config.profile else None
    self.active = False
    self._dispatches = 0

  def __enter__(self):
    return self

  def step(self, number: int):
    self._dispatches += 1
    if self._folder and self._dispatches == 3:
      jax.profiler.start_trace(self._folder)
      self.active = True
    if self.active and self._dispatches == 6:
      self._stop()
    return jax.profiler.StepTraceAnnotation('train', step_num=number)

  def _stop(self):
    jax.profiler.stop_trace()
    self.active = False
    print(f'profile  {self._folder}: open it with xprof or TensorBoard', flush=True)

  def __exit__(self, *exception):
    if self.active:
      self._stop()
