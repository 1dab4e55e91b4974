"""Watching a run for failures, and the folder that is written for each: WORKDIR/diagnosis/STEP/.

What a failure is stands in `engine.doctor`. Here are the figures that it is told by, at the steps
at which the loop logs, evaluates or samples anyway, and the files:

  diagnosis.txt    a paragraph for each finding: what was seen, the likely cause, what to try
  diagnosis.json   the same by parts, with the batch and the norms of every module
  metrics.jsonl    the last lines of the log, of each lane with a finding
  steps.jsonl      every step since the last of those lines, where a run stopped
  samples.png      samples, where the model samples images
"""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import files
from data.feed import Feed
from data.resident import Resident
from engine import doctor, pictures
from engine.build import to_plain
from engine.doctor import Finding, Logged, Sampled
from engine.lanes import take_lane
from engine.preflight import LaneSampler
from engine.session import Session
from engine.state import State, weights

FOLDER = 'diagnosis'
# Lines of the log that are kept for verdicts and bundles, and steps that a bundle holds.
_LINES, _STEPS = 64, 100
# Of the columns of a table that a bundle describes, and of the numbers of examples.
_MOST = 1000


class Diagnoses:
  """Diagnoses of one run, each printed when it is found, and again if it lasts to the end.

  Args:
    session: of the run.
    feed: of its batches.
    workdir: its folder.
    sampler: how samples are drawn in training; None if nothing is.
    say: prints a line for the person at the terminal.
    logged: the lines of the log before this process, as `metrics.jsonl` has them.
  """

  def __init__(
    self,
    session: Session,
    feed: Feed,
    workdir: str,
    sampler: LaneSampler | None,
    say: Callable[[str], None],
    logged: Sequence[Mapping[str, Any]] = (),
  ):
    self._session, self._feed, self._sampler = session, feed, sampler
    self._folder = files.path(workdir) / FOLDER
    self._say = say
    self._config = to_plain(session.config)
    self._contest = session.objective.contest
    self._remedies = session.objective.remedies
    lanes = session.lanes.number
    self._lines: list[deque[Logged]] = [deque(maxlen=_LINES) for _ in range(lanes)]
    self._largest = [0.0] * lanes  # gradient norm of the generator
    self._drawn: list[list[Sampled]] = [[] for _ in range(lanes)]
    self._evaluated: list[list[Sampled]] = [[] for _ in range(lanes)]
    self._found: dict[tuple[int, str], Finding] = {}
    self._lasting: set[tuple[int, str]] = set()
    self._batch = jax.jit(feed.batch, out_shardings=session.replicated)
    self._taken: Any = None
    self._last = 0
    for line in logged:
      self._log(int(line['step']), [_of_lane(line, label) for label in self._labels])

  @property
  def _labels(self) -> tuple[str, ...]:
    """The label of each lane; '' where there is one."""
    labels = self._session.lanes.labels
    return labels if len(labels) > 1 else ('',)

  def took(self, taken: Any, number: int) -> None:
    """Notes the data of the last dispatch, as the feed gave it; nothing is read."""
    self._taken, self._last = taken, number - 1

  def look(
    self,
    step: int,
    state: State,
    logged: Sequence[Mapping[str, float]],
    evaluated: Sequence[Mapping[str, float]],
    drawn: Sequence[np.ndarray] | None,
  ) -> None:
    """Looks at what is known at a step; says and writes what is found there for the first time.

    Args:
      step: where the run is.
      state: at this step.
      logged: means of each lane since the last line of the log; empty between lines.
      evaluated: figures of evaluators of each lane; empty where none was due.
      drawn: samples of each lane; None where none were.
    """
    if not any(logged) and not evaluated and drawn is None:
      return
    try:
      self._look(step, state, logged, evaluated, drawn)
    except Exception as error:  # What only watches a run must never end it.
      self._say(f'warning  no diagnosis at step {step} ({type(error).__name__}: {error})')

  def say_lasting(self) -> None:
    """Says once more what was found and still holds."""
    for key in sorted(self._lasting):
      found = self._found[key]
      self._say(f'warning  to the end, {_line(found, self._place(found.step))}')

  def stopped(
    self, step: int, lane: int, player: str, rows: Sequence[np.ndarray], names: Sequence[str],
    state: State,
  ) -> str:  # fmt: skip
    """Diagnoses a run that stopped being finite, and writes it.

    Args:
      step: the first one that was not finite, from 1.
      lane: its lane.
      player: the first one with a metric that is not finite.
      rows: of the steps since the last line of the log, [M, 2] each, the last one of `step`.
      names: of the M metrics.
      state: after the step.

    Returns:
      What is said of it: what was seen, the likely cause, what to try, and where more is.
    """
    try:
      metrics = [_by_name(row, names) for row in rows]
      values = {name: value for name, (value, _) in metrics[-1].items()}
      label = self._labels[lane]
      stop = doctor.Stop(step, player, values, metrics[:-1], label)
      with jax.transfer_guard('allow'):
        # The last dispatch may be a later one. Reading ahead is over, so that a jump does no harm.
        self._taken = None
        batches = [self._host_batch(each, lane) for each in (step, step - 1) if each > 0]
        norms = self._norms(state, lane)
      found = doctor.not_finite(
        stop,
        batches,
        {module: values[0] for module, values in norms.items()},
        self._session.spec,
        self._session.objective.players,
        self._config,
      )
    except Exception as error:  # It must not hide the sentence that it is added to.
      return f'it could not be diagnosed ({type(error).__name__}: {error})'
    first = step - len(metrics) + 1
    steps = [{'step': first + i, **_plain(each)} for i, each in enumerate(metrics)]
    try:
      with jax.transfer_guard('allow'):
        self._write(step, state, {lane: [found]}, None, {lane: steps[-_STEPS:]}, batches[0])
    except Exception as error:
      return f'{found.paragraph} ({self._place(step)} cannot be written: {error})'
    return f'{found.paragraph}; more is in {self._place(step)}'

  # --- small parts

  def _look(
    self,
    step: int,
    state: State,
    logged: Sequence[Mapping[str, float]],
    evaluated: Sequence[Mapping[str, float]],
    drawn: Sequence[np.ndarray] | None,
  ) -> None:
    if any(logged):
      self._log(step, logged)
    images = self._sampler is not None and self._sampler.feature in self._session.spec.features
    images = images and 'image' in self._session.spec.features
    with jax.transfer_guard('allow'):
      for lane, figures in enumerate(evaluated):
        if images and doctor.tells_of_copies(figures):
          self._evaluated[lane].append(Sampled(step, None, figures))
      if drawn is not None and images and step >= doctor.EARLIEST_STEP:
        real = self._host_batch(step, 0)['image'].astype(np.float32) / 255
        for lane, samples in enumerate(drawn):
          self._drawn[lane].append(Sampled(step, doctor.spread(samples, real)))
      new: dict[int, list[Finding]] = {}
      for lane in range(len(self._labels)):
        for found in self._findings(lane):
          key = (lane, found.kind)
          if key not in self._found:
            self._found[key] = found._replace(step=step)
            new.setdefault(lane, []).append(self._found[key])
      if new:
        for each in new.values():
          for found in each:
            self._say(f'warning  {_line(found, self._place(step))}')
        self._write(step, state, new, drawn, {}, None)

  def _findings(self, lane: int) -> list[Finding]:
    """The failures of a lane at this moment."""
    label = self._labels[lane]
    held = {
      'collapse': doctor.collapse(
        self._drawn[lane],
        self._evaluated[lane],
        self._session.spec.num_classes,
        self._contest,
        self._remedies,
        self._config,
        label,
      ),
      'winning player': doctor.winner(
        [*self._lines[lane]],
        self._largest[lane],
        self._contest,
        self._remedies,
        self._config,
        label,
      ),
    }
    for kind, found in held.items():
      (self._lasting.add if found else self._lasting.discard)((lane, kind))
    return [found for found in held.values() if found is not None]

  def _log(self, step: int, lanes: Sequence[Mapping[str, float]]) -> None:
    for lane, figures in enumerate(lanes):
      if not figures:
        continue
      logged = Logged(step, figures)
      self._lines[lane].append(logged)
      if self._contest is not None:
        norm = doctor.generator_norm(logged, self._contest)
        self._largest[lane] = max(self._largest[lane], norm or 0.0)

  def _place(self, step: int) -> files.Path:
    return self._folder / str(step)

  def _host_batch(self, step: int, lane: int) -> dict[str, np.ndarray]:
    """The batch of a step of a lane, as it is stored.

    Of a streamed feed it is the last one of the last dispatch, if that is known: at the steps that
    the loop waits for it is theirs, and another one would have to be read.
    """
    used = (step - 1) * self._session.per_step
    taken, i = self._taken, self._last
    if taken is None or isinstance(self._feed, Resident):
      i = 0
      _, taken = self._feed.take(used, 1)
    if len(self._labels) > 1:
      own = self._session.lanes.inputs
      taken = {**taken, **{name: jnp.asarray(value[lane]) for name, value in own.items()}}
    batch = jax.device_get(self._batch(taken, jnp.int32(i)))
    return {name: np.asarray(values) for name, values in batch.items()}

  def _norms(self, state: State, lane: int) -> dict[str, tuple[float, int]]:
    """Of every module of a lane the norm of its parameters, and how many are not finite."""
    held = take_lane(weights(state), lane, len(self._labels)).params
    norms = jax.device_get(jax.jit(_parameter_norms, out_shardings=self._session.replicated)(held))
    return {module: (float(norm), int(bad)) for module, (norm, bad) in norms.items()}

  def _write(
    self,
    step: int,
    state: State,
    findings: Mapping[int, Sequence[Finding]],
    drawn: Sequence[np.ndarray] | None,
    steps: Mapping[int, Sequence[Mapping[str, Any]]],
    batch: Mapping[str, np.ndarray] | None,
  ) -> None:
    """Writes the folder of a step; computed by all processes, written by the first."""
    told, sheets = [], {}
    for lane, each in findings.items():
      rows = self._host_batch(step, lane) if batch is None else batch
      facts = {
        'batch': self._described(step, rows),
        'modules': {
          module: {'parameter_norm': _json(norm), 'parameters_not_finite': bad}
          for module, (norm, bad) in self._norms(state, lane).items()
        },
      }
      told += [{**found._asdict(), **facts} for found in each]
      images = self._images(state, lane, drawn)
      if images is not None:
        sheets[self._labels[lane]] = pictures.enlarge(pictures.grid(images))
    if jax.process_index():
      return
    place = self._place(step)
    paragraphs = [_line(found) for each in findings.values() for found in each]
    files.write_text(place / 'diagnosis.txt', '\n\n'.join(paragraphs) + '\n')
    files.write_json(place / 'diagnosis.json', {'step': step, 'findings': told})
    lines = [
      {'lane': self._labels[lane], 'step': line.step, **_plain(line.figures)}
      for lane in findings
      for line in self._lines[lane]
    ]
    _write_lines(place / 'metrics.jsonl', lines)
    if steps:
      _write_lines(place / 'steps.jsonl', [row for each in steps.values() for row in each])
    for label, sheet in sheets.items():
      pictures.write_png(place / (f'samples_{label}.png' if label else 'samples.png'), sheet)

  def _images(
    self, state: State, lane: int, drawn: Sequence[np.ndarray] | None
  ) -> np.ndarray | None:
    """Samples of a lane, grey where they are not finite; None where the model samples no images."""
    if self._sampler is None or 'image' not in self._session.spec.features:
      return None
    if drawn is None:
      held = take_lane(weights(state), lane, len(self._labels))
      samples = self._sampler.draw(held, int(self._session.lanes.seeds[lane]))
      images = np.asarray(jax.device_get(jax.block_until_ready(samples)))
    else:
      images = drawn[lane]
    return np.where(np.isfinite(images), images, 0.5)

  def _described(self, step: int, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The position of a batch in the data, and what its numbers are."""
    spec = self._session.spec
    features = {
      name: _numbers(values)
      for name, values in batch.items()
      if name not in ('index', 'epoch') and values.dtype.kind in 'uif'
    }
    columns = batch.get('inputs', np.empty((0, 0)))
    if columns.ndim == 2 and 0 < columns.shape[1] <= _MOST:
      names = doctor.column_names('inputs', True, columns.shape[1], spec)
      features['inputs'] |= {'columns': {n: _numbers(c) for n, c in zip(names, columns.T)}}
    return {
      'data': f'{spec.name} {spec.split}',
      'used': (step - 1) * self._session.per_step,
      'epochs': sorted({int(epoch) for epoch in batch['epoch']}),
      'examples': batch['index'][:_MOST].tolist(),
      'features': features,
    }


def _line(found: Finding, place: Any = None) -> str:
  """A finding as one line, with its lane and the folder that was written."""
  lane = f'lane {found.lane}: ' if found.lane else ''
  where = '' if place is None else f'; more is in {place}'
  return f'step {found.step}: {lane}{found.paragraph}{where}'


def _of_lane(line: Mapping[str, Any], label: str) -> dict[str, float]:
  """The figures of one lane in a line of metrics.jsonl; '' for that of a run of one."""
  end = f'/{label}' if label else ''
  numbers = {k: v for k, v in line.items() if isinstance(v, (int, float)) and '/' in k}
  return {name.removesuffix(end): v for name, v in numbers.items() if name.endswith(end)}


def _by_name(row: np.ndarray, names: Sequence[str]) -> dict[str, tuple[float, float]]:
  """Value and weight of every metric of a row [M, 2]."""
  return {name: (float(value), float(weight)) for name, (value, weight) in zip(names, row)}


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
  """Figures, or values with weights, as JSON holds them; those without weight are left out."""
  pairs = {name: v if isinstance(v, tuple) else (v, 1.0) for name, v in figures.items()}
  return {name: _json(value) for name, (value, weight) in pairs.items() if weight}


def _json(value: float) -> float | str:
  """A number, or a word for what JSON has no number for."""
  return float(value) if math.isfinite(value) else str(float(value))


def _numbers(values: np.ndarray) -> dict[str, Any]:
  """Range and mean of the finite numbers of an array, and how many are not."""
  finite = np.isfinite(values)
  held = values[finite].astype(np.float64)
  if not held.size:
    return {'not_finite': int(values.size)}
  return {
    'least': float(held.min()),
    'mean': float(held.mean()),
    'largest': float(held.max()),
    'not_finite': int((~finite).sum()),
  }


def _write_lines(place: files.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  files.write_text(place, ''.join(f'{json.dumps(row)}\n' for row in rows))


def _parameter_norms(params: Mapping[str, Any]) -> dict[str, tuple[jax.Array, jax.Array]]:
  """The norm of every module's parameters, and how many of them are not finite."""
  return {module: _norm(jax.tree.leaves(tree)) for module, tree in params.items()}


def _norm(leaves: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
  if not leaves:
    return jnp.float32(0), jnp.int32(0)
  largest = jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()
  # Squares of what float32 holds may overflow.
  scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1)
  squares = jnp.stack([jnp.square(leaf / scale).sum() for leaf in leaves]).sum()
  bad = jnp.stack([(~jnp.isfinite(leaf)).sum() for leaf in leaves]).sum()
  return scale * jnp.sqrt(squares), bad
