"""Records of run folders, read without jax and without opening a checkpoint's arrays."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import files
from engine import lock, run
from engine.checksum import checksum
from errors import UserError

# What a folder holds that is a run, whole or damaged. A config.json alone has every folder of
# Hugging Face's.
_MARKS = ('run.json', 'metrics.jsonl', 'checkpoints')
# How deep runs are looked for below a folder.
_DEPTH = 3


class Record(NamedTuple):
  """A run as its folder tells of it.

  Attributes:
    name: of the folder, as it was given.
    config: of the run, as plain dicts.
    lines: of metrics.jsonl, whole ones alone, in the order of steps.
    step: the last one logged or saved.
    steps: the length of the run; None where it is not known.
    status: in words.
    when: of the last line, or of run.json, in seconds since 1970.
  """

  name: str
  config: Mapping[str, Any]
  lines: Sequence[Mapping[str, float | None]]
  step: int
  steps: int | None
  status: str
  when: float

  @property
  def ranking_figure(self) -> str:
    """The whole name of `config.checkpoint.best`, as the run logged it; '' where it has none."""
    best = self.config['checkpoint']['best']
    return self.logged_name(best) if best else ''

  @property
  def best_line(self) -> Mapping[str, float | None]:
    """The line with the best of the figure that ranks checkpoints; empty where there is none."""
    name, mode = self.ranking_figure, self.config['checkpoint']['best_mode']
    ranked = [line for line in self.lines if is_number(line.get(name))]
    if not ranked:
      return {}
    return (min if mode == 'min' else max)(ranked, key=lambda line: line[name])

  @property
  def figures(self) -> list[str]:
    """The names of all figures that were logged, those of lanes and deviations left out."""
    names = dict.fromkeys(name for line in self.lines for name in line)
    return [name for name in names if '/' in name and name.rpartition('/')[0] not in names]

  def logged_name(self, figure: str) -> str:
    """Returns the figure's name in metrics.jsonl: of samples `samples/fd` may stand for it."""
    names = dict.fromkeys(name for line in self.lines for name in line)
    longer = [name for name in names if name.startswith(f'{figure}_') and '/sd' not in name]
    return longer[0] if figure not in names and len(longer) == 1 else figure


def is_number(value: Any) -> bool:
  """Returns whether a value of metrics.jsonl is one that can be compared and drawn."""
  return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def find_runs(folder: str) -> list[str]:
  """Returns a run's folder itself, or those of all runs below it.

  Raises:
    UserError: there is no such folder, or it cannot be read.
  """
  place = files.path(folder)
  try:
    if not folder or not place.is_dir():
      raise UserError(f'there is no folder "{folder}"; give the folder of a run, or of several')
    return [*_runs_below(folder.rstrip('/') or folder, _DEPTH)]
  except OSError as error:
    raise UserError(f'cannot read {folder} ({error.strerror or error})') from error


def _runs_below(folder: str, depth: int) -> Iterator[str]:
  place = files.path(folder)
  if any((place / mark).exists() for mark in _MARKS):
    yield folder
  elif depth:
    for entry in files.entries(place):
      if entry.is_dir() and not entry.name.startswith('.'):
        yield from _runs_below(f'{folder}/{entry.name}', depth - 1)


def read_record(folder: str) -> Record:
  """Reads a run.

  Raises:
    UserError: the run is damaged; says what is wrong.
  """
  try:
    return _read(folder)
  except OSError as error:
    raise UserError(f'{folder} cannot be read ({error.strerror or error})') from error
  except KeyError as error:
    raise UserError(f'{folder} is damaged: its config.json has no {error}') from error
  except (TypeError, ValueError, AttributeError) as error:
    # The JSON is whole, and holds something else than a run's.
    raise UserError(f'{folder} is damaged ({type(error).__name__}: {error})') from error


def _read(folder: str) -> Record:
  place = files.path(folder)
  description, config = run.read_description(folder), run.read_config(folder)
  train, checkpoint = config['train'], config['checkpoint']
  for key, kind in ((config['objective']['name'], str), (config['data']['name'], str),
                    (checkpoint['best'], str), (checkpoint['best_mode'], str)):  # fmt: skip
    if not isinstance(key, kind):
      raise TypeError(f'{key} is no {kind.__name__}')
  lines = _read_lines(place / 'metrics.jsonl')
  saved = _saved_steps(place / 'checkpoints')
  steps = description.get('steps') or (None if train['epochs'] else int(train['steps']))
  step = max([int(lines[-1]['step']) if lines else 0, *saved])
  when = lines[-1].get('wall_time') if lines else None
  status = _status(place, saved, step, steps, int(train['patience']))
  written = when if is_number(when) else (place / 'run.json').stat().mtime
  return Record(folder, config, lines, step, steps, status, float(written))


def read_fingerprint(folder: str, step: int) -> str:
  """Returns a hash, hexadecimal, of the parameters of a run's checkpoint; '' if there is none.

  It is of the checksums that the checkpoint holds, with which its arrays are compared when they are
  restored.
  """
  try:
    meta = files.read_json(files.path(folder) / 'checkpoints' / str(step) / 'meta' / 'metadata')
    return checksum(meta['fingerprint']['variables'])
  except (OSError, ValueError, KeyError, TypeError):
    return ''


def saved_steps(folder: str) -> list[int]:
  """Returns the steps of a run's checkpoints, the oldest first."""
  return _saved_steps(files.path(folder) / 'checkpoints')


def _read_lines(path: files.Path) -> list[dict[str, Any]]:
  """The whole lines; one that is torn, by a process that was killed, is left out."""
  kept = []
  text = path.read_bytes().decode(errors='replace') if path.exists() else ''
  for line in text.splitlines():
    try:
      found = files.parse_json(line)
    except ValueError:
      continue
    if isinstance(found, dict) and is_number(found.get('step')):
      kept.append(found)
  if text.strip() and not kept:
    raise UserError(f'{path} is damaged: it has no whole line')
  return sorted(kept, key=lambda line: line['step'])


def _saved_steps(folder: files.Path) -> list[int]:
  return sorted(int(entry.name) for entry in files.entries(folder) if entry.name.isdigit())


def _status(
  place: files.Path, saved: Sequence[int], step: int, steps: int | None, patience: int
) -> str:
  if lock.is_held(place / '.lock'):
    return 'training'
  if steps is not None and step >= steps:
    return 'complete' if saved else 'complete, no checkpoint'
  if patience and saved and _ran_out(place / 'checkpoints' / str(saved[-1]), patience):
    return 'stopped early'
  if not saved:
    return 'no checkpoint'
  return 'stopped' if saved[-1] == step else f'stopped, saved at {saved[-1]:,}'


def _ran_out(checkpoint: files.Path, patience: int) -> bool:
  """Whether every lane had waited long enough; False where the checkpoint does not say."""
  try:
    meta = files.read_json(checkpoint / 'meta' / 'metadata')
    return all(waited >= patience for *_, waited in meta['patience'])
  except (OSError, ValueError, KeyError, TypeError):
    return False
