"""TensorBoard's files, written without TensorFlow into the run's folder."""

from collections.abc import Callable, Mapping
from logging import ERROR, getLogger
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

import files
from engine.tracking import Tracked, Tracker


class TensorBoard(Tracker):
  """Writes scalars, images, texts, and the config: a table under Text, and a row under HParams."""

  def __init__(self, tracked: Tracked):
    first = tracked.first_step
    # It warns of every figure that is undefined, which the log shows anyway.
    getLogger('tensorboardX.x2num').setLevel(ERROR)
    # purge_step hides what a killed process wrote beyond the checkpoint.
    self._events = SummaryWriter(str(tracked.workdir), purge_step=first + 1 if first else None)
    self._failure: Exception | None = None
    self._keep_what_is_refused()
    rows = ''.join(f'| {name} | {value} |\n' for name, value in tracked.options.items())
    self._events.add_text('config', f'| option | value |\n| --- | --- |\n{rows}', first)
    # `SummaryWriter.add_hparams` would write them into a run of its own.
    plain = {
      name: value if _is_plain(value) else str(value) for name, value in tracked.options.items()
    }
    for summary in hparams(plain, {tracked.best: 0.0} if tracked.best else {}):
      self._events.file_writer.add_summary(summary)

  def figures(self, step: int, figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
      self._events.add_scalar(name, value, step)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._events.add_image(name, image, step, dataformats='HWC')

  def text(self, step: int, name: str, text: str) -> None:
    self._events.add_text(name, f'```\n{text}\n```', step)

  def close(self) -> None:
    self._events.close()
    if self._failure is not None:
      raise self._failure

  def _keep_what_is_refused(self) -> None:
    """Has events that a full disk refuses written later.

    The thread of tensorboardX that writes them ends at the first error, and whoever adds an event
    then waits for it for ever.
    """
    writer = self._events.file_writer.event_writer
    # While that thread writes, its file must not be taken away: the process would crash.
    writer._worker.stop()
    records = writer._ev_writer._py_recordio_writer
    if hasattr(records, '_writer'):  # a local file, not a bucket, whose events are all kept anyway
      records._writer = files.Growing(records._writer.detach())
    records.flush, records.close = self._later(records.flush), self._later(records.close)
    writer._closed = True
    writer.reopen()  # which starts the thread again

  def _later(self, write: Callable[[], None]) -> Callable[[], None]:
    """A function that writes, and notes whether it could."""

    def tried() -> None:
      try:
        write()
        self._failure = None
      except Exception as error:  # clients of buckets raise many kinds
        self._failure = error

    return tried


def _is_plain(value: Any) -> bool:
  """Whether TensorBoard takes a value of an option as a number."""
  if isinstance(value, int) and not -(2**63) <= value < 2**63:
    return False
  return isinstance(value, (bool, int, float))
