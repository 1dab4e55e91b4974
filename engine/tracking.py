"""The section `config.report`: who else follows a run, beside the terminal and metrics.jsonl.

A tracker is one file of `engine/trackers/` with one class, named as the file is. A tracker that
fails never ends a training.
"""

import abc
import contextlib
import dataclasses
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import files
from engine.build import resolve
from errors import UserError
from options import option

_ROOM = 'engine.trackers'
_WHERE = 'config.report.trackers'
TRACKERS = tuple(
  sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / 'trackers')]))
)


@dataclasses.dataclass(frozen=True)
class Reported:
  """The options of `config.report`."""

  trackers: Sequence[str] = option(
    'Who is sent the figures, samples and options of a run, beside metrics.jsonl; `wandb` needs '
    '`pip install wandb`, and is offline unless WANDB_MODE or WANDB_API_KEY is set. () is nobody.',
    choices=TRACKERS,
  )


class Tracked(NamedTuple):
  """The facts about a run that every tracker receives.

  Attributes:
    workdir: the run's folder.
    first_step: where this process starts; what an earlier one sent of later steps is void.
    options: of the config by their place in it.
    best: the figure by which runs are compared; '' for none.
  """

  workdir: files.Path
  first_step: int
  options: Mapping[str, Any]
  best: str


class Tracker(abc.ABC):
  """Follows one run, in one process; it may raise anything."""

  @abc.abstractmethod
  def __init__(self, tracked: Tracked):
    """Starts to follow a run, or goes on with it."""

  @property
  def place(self) -> str:
    """Where a person finds what was sent, for the terminal; '' if that needs no word."""
    return ''

  @abc.abstractmethod
  def figures(self, step: int, figures: Mapping[str, float]) -> None:
    """Takes figures by name, which may be nan; of several lanes as `combine_lanes` names them."""

  @abc.abstractmethod
  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Takes a picture, uint8 [H, W, C] of 1 or 3 channels."""

  @abc.abstractmethod
  def text(self, step: int, name: str, text: str) -> None:
    """Takes a text of several lines."""

  @abc.abstractmethod
  def close(self) -> None:
    """Ends; nothing follows."""


def check_trackers(names: Sequence[str]) -> None:
  """Checks that the trackers of a config can be used, before anything is opened.

  Raises:
    UserError: one is named twice, or its library is missing or cannot be imported.
  """
  for name in names:
    if [*names].count(name) > 1:
      raise UserError(f'{_WHERE}={",".join(names)} names {name} twice; name it once')
    try:
      resolve(name, _ROOM, _WHERE)
    except UserError:
      raise
    except Exception as error:  # Whatever a library raises that does not fit the others.
      package = (getattr(error, 'name', '') or name).split('.')[0]
      reason = 'is not installed' if isinstance(error, ModuleNotFoundError) else f'fails: {error}'
      raise UserError(
        f'{_WHERE}={",".join(names)}: the package {package} {" ".join(reason.split())}; '
        f'pip install --upgrade {package}, or leave {name} out'
      ) from error


class Trackers:
  """All trackers of a run; one that fails is left out from then on, with one line about it.

  Args:
    names: as in `Reported`, checked by `check_trackers`.
    tracked: see `Tracked`.
    say: prints a line for the person at the terminal.
  """

  def __init__(self, names: Sequence[str], tracked: Tracked, say: Callable[[str], None]):
    self._tracked, self._say = tracked, say
    self._waiting, self._open = list(names), dict[str, Tracker]()

  def figures(self, step: int, figures: Mapping[str, float]) -> None:
    self._each(step, lambda tracker: tracker.figures(step, figures))

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._each(step, lambda tracker: tracker.image(step, name, image))

  def text(self, step: int, name: str, text: str) -> None:
    self._each(step, lambda tracker: tracker.text(step, name, text))

  def close(self) -> None:
    while self._open:
      name, tracker = self._open.popitem()
      with self._failures(name, 'at its end'):
        tracker.close()

  def _each(self, step: int, send: Callable[[Tracker], None]) -> None:
    """Sends something to each, which are opened by the first."""
    while self._waiting:
      name = self._waiting.pop(0)
      with self._failures(name, f'at step {step}'):
        opened = resolve(name, _ROOM, _WHERE)(self._tracked)
        self._open[name] = opened
        if opened.place:
          self._say(f'{name:9}{opened.place}')
    for name, tracker in [*self._open.items()]:
      with self._failures(name, f'at step {step}'):
        send(tracker)

  @contextlib.contextmanager
  def _failures(self, name: str, when: str) -> Iterator[None]:
    """Leaves a tracker out that fails within."""
    try:
      yield
    except Exception as error:
      failed = self._open.pop(name, None)
      what = ' '.join(f'{type(error).__name__}: {error}'.split())
      self._say(f'warning  the tracker {name} failed {when} ({what}); the run goes on without it')
      if failed is not None:
        with contextlib.suppress(Exception):
          failed.close()
