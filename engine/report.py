"""What a person sees of a run: lines, a progress bar, metrics.jsonl, TensorBoard, pictures."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine import pictures

# Stands between texts, on the terminal and in files.
BETWEEN_TEXTS = '\n---------------\n'


class Report:
  """Writes the logs of one run.

  Args:
    workdir: the run's folder.
    first_step: where this process starts; later lines of an earlier, killed process are dropped.
    last_step: where the run ends.
    visible: False on every process but the first: nothing is written or printed.
  """

  def __init__(self, workdir: str, first_step: int, last_step: int, visible: bool):
    self._visible = visible
    if not visible:
      return
    self._workdir = Path(workdir)
    self._last_step = last_step
    self._started = time.time()
    _drop_lines_after(self._workdir / 'metrics.jsonl', first_step)
    self._lines = open(self._workdir / 'metrics.jsonl', 'a')
    self._first_step = first_step
    self._events = None
    self._bar = _Bar(first_step, last_step) if sys.stdout.isatty() else _Plain(last_step)

  def progress(
    self, step: int, speed: float | None, metrics: Mapping[str, float], logged: bool
  ) -> None:
    """Moves the bar; nothing is written. `logged`: `scalars` is about to tell of this step."""
    if self._visible:
      self._bar.move(step, speed, metrics, logged)

  def scalars(self, step: int, speed: float | None, metrics: Mapping[str, float]) -> None:
    """One line of metrics.jsonl and TensorBoard's scalars; `speed` in steps/s, None if none."""
    if not self._visible:
      return
    line = {'step': step, 'wall_time': time.time()}
    if speed is not None:
      line['steps_per_second'] = round(speed, 3)
    # JSON has no NaN.
    line.update({k: float(v) if math.isfinite(v) else None for k, v in metrics.items()})
    self._lines.write(json.dumps(line) + '\n')
    self._lines.flush()
    self._bar.log(step, speed, metrics)
    for name, value in metrics.items():
      self._tensorboard().add_scalar(name, value, step)
    if speed is not None:
      self._tensorboard().add_scalar('steps_per_second', speed, step)

  def samples(self, step: int, images: np.ndarray) -> None:
    """A grid of images float [N, H, W, C] in [0, 1], as samples/step_N.png and in TensorBoard."""
    if not self._visible:
      return
    sheet = pictures.grid(images)
    path = self._workdir / 'samples' / f'step_{step:08d}.png'
    pictures.write_png(path, pictures.enlarge(sheet))
    self._tensorboard().add_image('samples', sheet, step, dataformats='HWC')

  def texts(self, step: int, texts: Sequence[str]) -> None:
    """Texts, as samples/step_N.txt and in TensorBoard."""
    if not self._visible:
      return
    path = self._workdir / 'samples' / f'step_{step:08d}.txt'
    path.parent.mkdir(exist_ok=True)
    whole = BETWEEN_TEXTS.join(texts)
    path.write_text(whole + '\n')
    self._tensorboard().add_text('samples', f'```\n{whole}\n```', step)

  def say(self, line: str) -> None:
    """One line for the person at the terminal."""
    if self._visible:
      self._bar.say(line)

  def close(self) -> None:
    if self._visible:
      self._bar.close()
      self._lines.close()
      if self._events is not None:
        self._events.close()

  def _tensorboard(self):
    if self._events is None:
      from tensorboardX import SummaryWriter

      # purge_step hides what a killed process wrote beyond the checkpoint.
      purge = self._first_step + 1 if self._first_step else None
      self._events = SummaryWriter(str(self._workdir), purge_step=purge)
    return self._events


class Counting:
  """Progress over the examples of a split, with the time left; call it with how many are done."""

  # Seconds between lines where there is no terminal.
  PAUSE = 10.0

  def __init__(self, what: str, total: int):
    self._what, self._total = what, total
    self._bar = None
    self._started = self._said = time.monotonic()

  def __enter__(self) -> 'Counting':
    return self

  def __call__(self, done: int, figures: Mapping[str, float]) -> None:
    shown = '  '.join(f'{name} {value:.4g}' for name, value in figures.items())
    if sys.stdout.isatty():
      if self._bar is None:
        self._bar = _counting_bar(self._what)
        self._task = self._bar.add_task('', total=self._total, figures='')
        self._bar.start()
      self._bar.update(self._task, completed=done, figures=shown)
      return
    now = time.monotonic()
    if now - self._said >= self.PAUSE:
      self._said = now
      left = (now - self._started) / done * (self._total - done)
      print(f'{self._what} {done:,}/{self._total:,}  {_clock(left)} left  {shown}', flush=True)

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.stop()


def _counting_bar(what: str):
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

  return Progress(
    TextColumn(what),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(elapsed_when_finished=True),
    TextColumn('{task.fields[figures]}', style='dim'),
  )


def _drop_lines_after(path: Path, step: int) -> None:
  """Keeps the whole lines up to `step`: a killed run may have logged past its checkpoint."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      if json.loads(line)['step'] <= step:
        kept.append(line)
    except (ValueError, KeyError, TypeError):
      continue  # The half-written last line of a killed process.
  part = path.with_name(f'{path.name}.part')
  part.write_text(''.join(f'{line}\n' for line in kept))
  part.replace(path)


def _losses(metrics: Mapping[str, float]) -> str:
  """The figures worth a place on a line: every player's loss, then what evaluation found."""
  shown = {k: v for k, v in metrics.items() if k.endswith('/loss') or k.startswith('eval/')}
  return '  '.join(f'{name} {value:.4g}' for name, value in shown.items())


def _number(value: float) -> str:
  return f'{value:.3g}' if value < 1000 else f'{value:,.0f}'


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'


class _Plain:
  """Lines, for a log file or a pipe: those of the log, and one of progress where none comes."""

  # Seconds without a line until a dispatch that is done is one.
  PAUSE = 60.0

  def __init__(self, last_step: int):
    self._last_step = last_step
    self._said = time.monotonic()

  def move(
    self, step: int, speed: float | None, metrics: Mapping[str, float], logged: bool
  ) -> None:
    if not logged and time.monotonic() - self._said >= self.PAUSE:
      self.log(step, speed, metrics)

  def log(self, step: int, speed: float | None, metrics: Mapping[str, float]) -> None:
    pace = ''
    if speed:
      pace = f'  {_number(speed)} steps/s  ETA {_clock((self._last_step - step) / speed)}'
    self.say(f'step {step}/{self._last_step}{pace}  {_losses(metrics)}')

  def say(self, line: str) -> None:
    self._said = time.monotonic()
    print(line, flush=True)

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

  def move(
    self, step: int, speed: float | None, metrics: Mapping[str, float], logged: bool
  ) -> None:
    del logged
    if speed is None:
      return
    pace = f'{_number(speed)} steps/s, {_clock((self._last_step - step) / speed)} left'
    self._progress.update(self._task, completed=step, pace=pace, losses=_losses(metrics))

  def log(self, step: int, speed: float | None, metrics: Mapping[str, float]) -> None:
    if any(name.startswith('eval/') for name in metrics):
      self.say(f'step {step}  {_losses(metrics)}')

  def say(self, line: str) -> None:
    self._progress.console.print(line, highlight=False, markup=False)

  def close(self) -> None:
    self._progress.stop()
