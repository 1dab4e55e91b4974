"""The recorded values, one JSON file a family, and when others count as the same.

A file holds

    why         the sentences given with each recording, the newest last
    jax         the version that recorded them
    tolerance   see `Tolerance`
    steps       of every config and data: `metrics` of each of five steps and `evaluation` after
                them; `drawn` names what depends on noise (latents, dropout, masks, coin flips,
                augmentation, restarted codes), a metric with the first step at which it does
    one_key     likewise where there is noise, all keys being the same: these survive a change of
                the streams that keys are folded from
    run         `metrics` of the last step of a short run of train.py, and which `noise` is in it
"""

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
# Read without importing jax, before which record.py sets what it reads of the environment.
JAX_VERSION = importlib.metadata.version('jax')
# Objectives that vary another one's; every other objective is a family of its own.
VARIATIONS = {
  'cgan': 'gan',
  'cvae': 'vae',
  'iwae': 'vae',
  'vampprior': 'vae',
  'classify': 'classifier',
  'tag': 'masked_lm',
  'seq_classify': 'masked_lm',
}


class Tolerance(NamedTuple):
  """How far a value may be from the recorded one, as a share of it.

  Attributes:
    first_step: of the metrics of the first step, which see the initial parameters.
    later: of the steps after it and of the evaluation.
    run: of what the short run logged.
    least: of a recorded value smaller than this, it is a share of `least`.
    exceptions: another `later` for the configs named.
    reason: why no less and no more.
  """

  first_step: float
  later: float
  run: float
  least: float
  exceptions: Mapping[str, float]
  reason: str

  def for_version(self, recorded: str, now: str) -> 'Tolerance':
    """The tolerance where another version of jax, and so of XLA, computes than has recorded.

    It rounds elsewhere, and what training makes of that after the first step is ten times as much
    for two players and for importance weights (jax 0.12.0.1 against 0.10.2: 0.14 of a logit near 0
    after five steps of `dcgan:cifar10`, 0.016 of the KL of `iwae`).
    """
    if recorded == now:
      return self
    exceptions = {name: 10 * share for name, share in self.exceptions.items()}
    return self._replace(later=10 * self.later, run=10 * self.run, exceptions=exceptions)

  def allowed(self, name: str) -> float:
    """The share for a value by its name in `flat`."""
    if name.startswith('run/'):
      return self.run
    if name.endswith('[0]'):
      return self.first_step
    config = name.split(':')[0]
    return self.exceptions[config] if config in self.exceptions else self.later


def family_of(objective: str) -> str:
  """The family of an objective by its name in `config.objective`."""
  return VARIATIONS[objective] if objective in VARIATIONS else objective


def families() -> list[str]:
  """Those that have recorded values."""
  return sorted(path.stem for path in FOLDER.glob('*.json'))


def read(family: str) -> dict[str, Any]:
  """What is recorded of a family; nothing for a new one."""
  path = FOLDER / f'{family}.json'
  if path.exists():
    return json.loads(path.read_text())
  return {
    'why': [],
    'jax': JAX_VERSION,
    'tolerance': None,
    'steps': {},
    'one_key': {},
    'run': {'metrics': {}},
  }


def write(family: str, recorded: Mapping[str, Any]) -> None:
  """Floats have the nine digits that tell any two of float32 apart; a list of them is one line."""
  text = json.dumps(_rounded(recorded), indent=1, ensure_ascii=False)
  text = re.sub(r'\[[-+.\de,\s]+\]', lambda match: ' '.join(match[0].split()), text)
  (FOLDER / f'{family}.json').write_text(text.replace('[ ', '[').replace(' ]', ']') + '\n')


def tolerance_of(recorded: Mapping[str, Any]) -> Tolerance:
  """The tolerance of a family's values with the jax that is installed."""
  return Tolerance(**recorded['tolerance']).for_version(recorded['jax'], JAX_VERSION)


def flat(values: Any, name: str = '') -> dict[str, float]:
  """Nested values by one name each, such as `metrics/vae/loss[3]`."""
  if isinstance(values, Mapping):
    parts = [flat(value, f'{name}/{key}' if name else key) for key, value in values.items()]
  elif isinstance(values, list):
    parts = [flat(value, f'{name}[{i}]') for i, value in enumerate(values)]
  else:
    return {name: values}
  return {key: value for part in parts for key, value in part.items()}


def flat_cases(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """The values of `steps` or `one_key`, by names such as `vae:mnist5k/metrics/vae/loss[3]`."""
  parts = ('metrics', 'evaluation')
  return flat({case: {part: entry[part] for part in parts} for case, entry in cases.items()})


def drawn_names(cases: Mapping[str, Mapping[str, Any]]) -> set[str]:
  """The names in `flat_cases` of the values of `steps` that depend on noise."""
  return {
    f'{case}/metrics/{name}[{step}]'
    for case, entry in cases.items()
    for name, first in entry['drawn']['metrics'].items()
    for step in range(first, len(entry['metrics'][name]))
  } | {
    f'{case}/evaluation/{name}'
    for case, entry in cases.items()
    for name in entry['drawn']['evaluation']
  }


def compare(
  recorded: Mapping[str, float], now: Mapping[str, float], tolerance: Tolerance
) -> tuple[list[str], float]:
  """Compares values by their names in `flat`.

  Returns:
    A sentence for each that is off or that only one side has, and the farthest of all as a multiple
    of what is allowed.
  """
  lines = [f'{name} is new' for name in now if name not in recorded]
  lines += [f'{name} is gone' for name in recorded if name not in now]
  farthest = 0.0
  for name in recorded:
    if name in now:
      old, new, allowed = recorded[name], now[name], tolerance.allowed(name)
      share = abs(new - old) / max(abs(old), tolerance.least)
      farthest = max(farthest, share / allowed if math.isfinite(share) else math.inf)
      if not share <= allowed:
        lines.append(f'{name}: {old:.9g} → {new:.9g}, off by {share:.1e}; {allowed:.0e} is allowed')
  return lines, farthest


def how_to_renew(family: str) -> str:
  """What to do about values that differ, for a message."""
  return (
    'if they were meant to change, record them anew, with one sentence that says why: '
    f'python -m tests.golden.record --family={family} --why="…"'
  )


def _rounded(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _rounded(part) for key, part in value.items()}
  if isinstance(value, list):
    return [_rounded(part) for part in value]
  return float(f'{value:.9g}') if isinstance(value, float) else value
