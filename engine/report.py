"""The output of a run for a person: lines, a progress bar, metrics.jsonl, samples, trackers."""

import contextlib
import errno
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

import files
from data.text import tokenization
from engine import pictures
from engine.tracking import Tracked, Trackers
from errors import UserError

if TYPE_CHECKING:
  from rich.progress import Progress

# The log of a run, one JSON object a line.
METRICS = 'metrics.jsonl'
# Stands between texts, on the terminal and in files.
BETWEEN_TEXTS = '\n---------------\n'


class Shown(NamedTuple):
  """The facts about a run that a report shows or formats by.

  Attributes:
    lanes: label of each lane.
    evaluators: names of the evaluators, whose figures are always shown.
    tokenizer: JSON of the tokenizer; '' for a run without text.
    options: of the config by their place in it, for trackers.
    best: the figure by which runs are compared there; '' for none.
    trackers: as in `engine.tracking.Reported`.
  """

  lanes: Sequence[str]
  evaluators: Sequence[str]
  tokenizer: str
  options: Mapping[str, Any]
  best: str
  trackers: Sequence[str]


class Report:
  """Writes the logs of one run.

  Args:
    workdir: the run's folder.
    first_step: where this process starts; later lines of an earlier, killed process are dropped.
    last_step: where the run ends.
    shown: see `Shown`.
    visible: False on every process but the first: nothing is written or printed.
  """

  def __init__(self, workdir: str, first_step: int, last_step: int, shown: Shown, visible: bool):
    self._shown = shown
    self._visible = visible
    if not visible:
      return
    self._workdir = files.path(workdir)
    self._last_step = last_step
    self._started = time.time()
    self._refused: set[str] = set()  # the kinds of output that the disk refuses at present
    with _log_errors(self._workdir / METRICS):
      _drop_lines_after(self._workdir / METRICS, first_step)
      self._lines = files.append_lines(self._workdir / METRICS)
    kind = _Bar if sys.stdout.isatty() else _Plain
    self._bar = kind(first_step, last_step)
    tracked = Tracked(self._workdir, first_step, shown.options, shown.best)
    self._trackers = Trackers(shown.trackers, tracked, self.say)

  def progress(
    self, step: int, speed: float | None, lanes: Sequence[Mapping[str, float]], logged: bool
  ) -> None:
    """Moves the bar; nothing is written.

    Args:
      step: where the run is.
      speed: in steps/s; None before it is known.
      lanes: the metrics of each lane, as `scalars` would be given them at this step.
      logged: whether `scalars` follows for this step.
    """
    if self._visible:
      self._bar.move(step, speed, self._line(lanes), logged)

  def scalars(self, step: int, speed: float | None, lanes: Sequence[Mapping[str, float]]) -> None:
    """Writes one line of metrics.jsonl, and sends its figures to the trackers.

    Of several lanes `NAME` is the mean, `NAME/sd` the standard deviation, `NAME/LANE` each lane's.

    Args:
      step: of the figures.
      speed: in steps/s; None if there is none.
      lanes: the figures of each lane.
    """
    if not self._visible:
      return
    metrics = combine_lanes(lanes, self._shown.lanes)
    line: dict[str, float | None] = {'step': step, 'wall_time': time.time()}
    if speed is not None:
      line['steps_per_second'] = round(speed, 3)
    # JSON has no NaN.
    line.update({k: float(v) if math.isfinite(v) else None for k, v in metrics.items()})
    text = json.dumps(line)
    with self._goes_on(f'{METRICS} lacks lines from step {step} on, which are written later'):
      self._lines.add(text)
    self._bar.log(step, speed, self._line(lanes))
    pace = {} if speed is None else {'steps_per_second': speed}
    self._trackers.figures(step, {**metrics, **pace})

  def samples(self, step: int, feature: str, lanes: Sequence[np.ndarray]) -> None:
    """Writes samples to samples/step_N.*, and sends them to the trackers.

    Args:
      step: of the samples.
      feature: what they are: 'image' or 'tokens'.
      lanes: the samples of each lane.
    """
    if not self._visible:
      return
    for label, samples in zip(self._shown.lanes, lanes):
      suffix = '' if len(lanes) == 1 else f'_{label}'
      path = self._workdir / 'samples' / f'step_{step:08d}{suffix}'
      with self._goes_on(f'the samples of step {step} are not written'):
        _SHOW[feature](self, step, path, samples, f'samples{suffix}')

  @contextlib.contextmanager
  def _goes_on(self, loss: str) -> Iterator[None]:
    """Within it, what the disk or bucket refuses is a warning, one until it is taken again.

    Args:
      loss: what is missing, as a sentence that begins with its kind.
    """
    kind = loss.split()[0]
    try:
      yield
    except Exception as error:  # clients of buckets raise many kinds
      if not isinstance(error, OSError) and files.is_local(self._workdir):
        raise
      if kind not in self._refused:
        known = error if isinstance(error, OSError) else OSError(None, str(error))
        warn(f'warning: {loss}: {files.why_not_written(self._workdir, known)}; training goes on')
      self._refused.add(kind)
    else:
      self._refused.discard(kind)

  def _show_images(self, step: int, path: files.Path, images: np.ndarray, tag: str) -> None:
    """A grid of images float [N, H, W, C] in [0, 1]."""
    sheet = pictures.grid(images)
    self._trackers.image(step, tag, sheet)
    pictures.write_png(path.with_suffix('.png'), pictures.enlarge(sheet))

  def _show_tokens(self, step: int, path: files.Path, rows: np.ndarray, tag: str) -> None:
    """Texts of tokens int32 [N, T]."""
    tokenizer = tokenization.from_json(self._shown.tokenizer)
    whole = BETWEEN_TEXTS.join(tokenizer.decode(row) for row in rows)
    self._trackers.text(step, tag, whole)
    files.write_text(path.with_suffix('.txt'), whole + '\n')

  def _line(self, lanes: Sequence[Mapping[str, float]]) -> '_Line':
    """The figures worth a place on the terminal: every player's loss, and those of evaluators."""
    names = dict.fromkeys(name for lane in lanes for name in lane)
    figures = {name: _figure([lane[name] for lane in lanes if name in lane]) for name in names}
    evaluated = {n: f for n, f in figures.items() if n.split('/')[0] in self._shown.evaluators}
    losses = {n: f for n, f in figures.items() if n.endswith('/loss') and n not in evaluated}
    return _Line(losses, evaluated)

  def say(self, line: str) -> None:
    """One line for the person at the terminal."""
    if self._visible:
      self._bar.say(line)

  def close(self) -> None:
    if self._visible:
      self._trackers.close()
      self._bar.close()
      self._refused.clear()  # what is missing now stays missing
      with self._goes_on(f'{METRICS} lacks its last lines'):
        self._lines.close()


# What a disk refuses the output of a process with that is written to a file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def show(line: str) -> None:
  """Prints a line; one that a full disk refuses may be lost, and ends nothing."""
  _print(line, sys.stdout)


def warn(line: str) -> None:
  """Likewise on standard error."""
  _print(line, sys.stderr)


def _print(line: str, stream: TextIO) -> None:
  try:
    print(line, file=stream, flush=True)
  except OSError as error:
    if error.errno not in _NO_ROOM:
      raise


# How samples of each feature are shown.
_SHOW = {'image': Report._show_images, 'tokens': Report._show_tokens}


class Counting:
  """Progress over examples or samples, with the time left; call it with how many are done.

  It shows itself as soon as it is entered, before anything is compiled: as a bar, or where there is
  no terminal as a line, followed by further ones every `PAUSE` seconds.

  Args:
    what: is done.
    total: how many there are to do.
    screen: where it is shown; None for standard output.
  """

  # Seconds between lines where there is no terminal.
  PAUSE = 10.0

  def __init__(self, what: str, total: int, screen: TextIO | None = None):
    self._what, self._total, self._screen = what, total, screen or sys.stdout
    self._bar: Progress | None = None
    self._started = self._said = time.monotonic()

  def __enter__(self) -> 'Counting':
    if self._screen.isatty():
      self._bar = _counting_bar(self._what, self._screen)
      self._task = self._bar.add_task('', total=self._total, figures='')
      self._bar.start()
    else:
      print(f'{self._what} 0/{self._total:,}', file=self._screen, flush=True)
    return self

  def __call__(self, done: int, figures: Mapping[str, float]) -> None:
    shown = '  '.join(f'{name} {value:.4g}' for name, value in figures.items())
    if self._bar is not None:
      self._bar.update(self._task, completed=done, figures=shown)
      return
    now = time.monotonic()
    if now - self._said >= self.PAUSE:
      self._said = now
      left = (now - self._started) / done * (self._total - done)
      line = f'{self._what} {done:,}/{self._total:,}  {_clock(left)} left  {shown}'
      print(line, file=self._screen, flush=True)

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.stop()


def _counting_bar(what: str, screen: TextIO) -> 'Progress':
  from rich.console import Console
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

  return Progress(
    TextColumn(what),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(elapsed_when_finished=True),
    TextColumn('{task.fields[figures]}', style='dim'),
    console=Console(file=screen),
  )


def last_step(folder: files.Path) -> int:
  """Returns the last step that the run in a folder logged; 0 for none."""
  with _log_errors(folder / METRICS):
    return max((step for step, _ in _logged(folder / METRICS)), default=0)


def logged_lines(workdir: str) -> list[dict[str, Any]]:
  """Returns the whole lines of a run's log; none where there is no log."""
  place = files.path(workdir) / METRICS
  with _log_errors(place):
    return [files.parse_json(line) for _, line in _logged(place)]


@contextlib.contextmanager
def _log_errors(path: files.Path) -> Iterator[None]:
  """Within it, an error of the disk is a UserError that names the log."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{path} cannot be read and written ({error.strerror or error}); move it away and run the '
      'same command again'
    ) from error


def _logged(path: files.Path) -> list[tuple[int, str]]:
  """(step, line) of the whole lines of a log; none where there is none."""
  if not path.exists():
    return []
  found = []
  # A damaged line may be no text.
  for line in path.read_bytes().decode(errors='replace').splitlines():
    try:
      found.append((int(files.parse_json(line)['step']), line))
    except (ValueError, KeyError, TypeError):
      continue  # The half-written last line of a killed process.
  return found


def _drop_lines_after(path: files.Path, last: int) -> None:
  """Keeps the whole lines up to step `last`: a killed run may have logged past its checkpoint."""
  if path.exists():
    files.write_text(path, ''.join(f'{line}\n' for step, line in _logged(path) if step <= last))


def combine_lanes(lanes: Sequence[Mapping[str, float]], labels: Sequence[str]) -> dict[str, float]:
  """Returns the figures of all lanes by name.

  Those of one lane are left as they are. Of several `NAME` is the mean, `NAME/sd` the standard
  deviation with L − 1 in the denominator, and `NAME/LABEL` the figure of each lane.
  """
  if len(lanes) == 1:
    return dict(lanes[0])
  combined: dict[str, float] = {}
  for name in dict.fromkeys(name for lane in lanes for name in lane):
    values = {label: lane[name] for label, lane in zip(labels, lanes) if name in lane}
    combined[name] = float(np.mean([*values.values()]))
    if len(values) > 1:
      combined[f'{name}/sd'] = float(np.std([*values.values()], ddof=1))
    combined.update({f'{name}/{label}': value for label, value in values.items()})
  return combined


def _figure(values: Sequence[float]) -> str:
  """'0.123', or of several lanes '0.123 ± 0.004'."""
  if len(values) == 1:
    return f'{values[0]:.4g}'
  return f'{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}'


# Columns of a terminal that lines fit into, and those of a figure that shows 4 digits.
WIDTH, _DIGITS = 100, 10


class _Line(NamedTuple):
  """The figures of a step as texts by name: losses of players, and figures of evaluators."""

  losses: Mapping[str, str]
  evaluated: Mapping[str, str]

  def after(self, beginning: str) -> str:
    """Returns aligned lines of at most `WIDTH` columns, a longer name or figure excepted.

    Losses follow the beginning where there is room. All else is on further lines, in columns that
    are equally wide, the figures below each other.
    """
    cells = [f'{name} {figure:<{_DIGITS}}' for name, figure in self.losses.items()]
    first = '  '.join([beginning, *cells]).rstrip()
    rest = dict(self.evaluated)
    if len(first) > WIDTH:
      first, rest = beginning.rstrip(), {**self.losses, **rest}
    return '\n'.join([first, *_columns(rest)])


def _columns(figures: Mapping[str, str]) -> list[str]:
  """Lines of names and figures, as many beside each other as fit."""
  if not figures:
    return []
  indent = ' ' * len('step ')
  longest, wide = (max(map(len, words)) for words in (figures, figures.values()))
  cells = [f'{name:{longest}} {figure:>{max(wide, _DIGITS)}}' for name, figure in figures.items()]
  beside = max(1, (WIDTH - len(indent) + 2) // (len(cells[0]) + 2))
  return [indent + '  '.join(cells[i : i + beside]) for i in range(0, len(cells), beside)]


def _number(value: float) -> str:
  return f'{value:.3g}' if value < 1000 else f'{value:,.0f}'


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'


def _place(step: int, last_step: int) -> str:
  return f'step {step:>{len(str(last_step))}}/{last_step}'


class _Plain:
  """Lines, for a log file or a pipe: those of the log, and one of progress where none comes."""

  # Seconds without a line until a dispatch that is done is one.
  PAUSE = 60.0

  def __init__(self, first_step: int, last_step: int):
    del first_step
    self._last_step = last_step
    self._said = time.monotonic()

  def move(self, step: int, speed: float | None, line: _Line, logged: bool) -> None:
    if not logged and time.monotonic() - self._said >= self.PAUSE:
      self.log(step, speed, line)

  def log(self, step: int, speed: float | None, line: _Line) -> None:
    pace = ''
    if speed:
      left = _clock((self._last_step - step) / speed)
      pace = f'{_number(speed):>6} steps/s  ETA {left:<7}'
    self.say(line.after(f'{_place(step, self._last_step)}  {pace:26}'))

  def say(self, line: str) -> None:
    self._said = time.monotonic()
    show(line)

  def close(self) -> None:
    pass


class _Bar:
  """A rich progress bar, for a terminal."""

  def __init__(self, first_step: int, last_step: int):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    self._last_step = last_step
    self._progress = Progress(
      TextColumn('training'),
      BarColumn(bar_width=None),
      MofNCompleteColumn(),
      TextColumn('{task.fields[pace]}'),
      TextColumn('{task.fields[losses]}', style='dim'),
      expand=True,
    )
    self._task = self._progress.add_task(
      '', total=last_step, completed=first_step, pace='compiling…', losses=''
    )
    self._progress.start()

  def move(self, step: int, speed: float | None, line: _Line, logged: bool) -> None:
    del logged
    if speed is None:
      return
    pace = f'{_number(speed)} steps/s, {_clock((self._last_step - step) / speed)} left'
    losses = '  '.join(f'{name} {figure}' for name, figure in line.losses.items())
    self._progress.update(self._task, completed=step, pace=pace, losses=losses)

  def log(self, step: int, speed: float | None, line: _Line) -> None:
    del speed
    if line.evaluated:
      self.say(line.after(_place(step, self._last_step)))

  def say(self, line: str) -> None:
    self._progress.console.print(line, highlight=False, markup=False)

  def close(self) -> None:
    self._progress.stop()
