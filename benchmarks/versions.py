"""Speed of this checkout against that of another version of it, side by side in one run.

  git worktree add /tmp/before COMMIT
  python -m benchmarks.versions --before=/tmp/before --cases=dense_gan_128,mlp_32

Each version is a process that is kept alive and runs from its own folder; in a round both take the
same steps, one after the other, and the next round begins with the other one. The figure of a case
is the median over rounds of after/before in steps/s; above 1 this checkout is faster. Its interval
covers the median with at least 95 %, whatever the distribution (order statistics of a binomial;
Conover 1999, section 3.2). Then starts of train.py to its first step, as `benchmarks/startup.py`
takes them.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import startup
from benchmarks.cases import CASES, Case
from benchmarks.side import ROOT, Side
from errors import UserError, choose


def speeds(case: Case, before: str, rounds: int, seconds: float) -> dict[str, float]:
  """Runs one case; returns both medians in steps/s, the median ratio, its `low` and `high`."""
  command = [sys.executable, '-m', f'benchmarks.{case.program}', *case.config]
  sides = {
    name: Side(command, dict(os.environ), folder)
    for name, folder in (('before', before), ('after', ROOT))
  }
  for side in sides.values():
    side.ask('warm', case.steps)
  slower = min(side.ask('warm', 3 * case.steps) for side in sides.values())
  steps = max(case.steps, round(slower * seconds))
  measured: dict[str, list[float]] = {name: [] for name in sides}
  for i in range(rounds):
    for name in _in_turn(sides, i):
      measured[name].append(sides[name].ask('run', steps))
  for side in sides.values():
    side.close()
  ratios = [after / before for before, after in zip(measured['before'], measured['after'])]
  low, high = interval_of_median(ratios)
  return {
    **{name: statistics.median(values) for name, values in measured.items()},
    'ratio': statistics.median(ratios),
    'low': low,
    'high': high,
  }


def starts(config: str, before: str, repeats: int) -> dict[str, dict[str, float]]:
  """Median seconds from the start of train.py to its first step, `cold` and `warm`, of both."""
  folders = {'before': before, 'after': ROOT}
  taken = {kind: {name: [] for name in folders} for kind in ('cold', 'warm')}
  for i in range(repeats):
    with tempfile.TemporaryDirectory() as caches:
      for kind in taken:
        for name in _in_turn(folders, i):
          cache = f'{caches}/{name}'
          taken[kind][name].append(startup.first_step(config, cache, folders[name]))
  return {
    kind: {name: statistics.median(seconds) for name, seconds in sides.items()}
    for kind, sides in taken.items()
  }


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
  """The two order statistics that hold the median between them with at least 95 %.

  Raises:
    UserError: fewer than six values, of which even the outermost do not.
  """
  n = len(values)
  # How many may be left out at each end: P(B ≤ k − 1) ≤ 0.025 for B of n fair coins.
  k = max(k for k in range(n) if sum(math.comb(n, i) for i in range(k)) <= 0.025 * 2**n)
  if not k:
    raise UserError(f'--rounds={n} is too few for an interval; give at least 6')
  ordered = sorted(values)
  return ordered[k - 1], ordered[-k]


def _in_turn(names: Iterable[str], i: int) -> list[str]:
  """Both, the other one first in every other round."""
  return list(names)[:: -1 if i % 2 else 1]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--before', required=True, help='folder of the other version, a worktree')
  parser.add_argument('--cases', default='', help='names in benchmarks/cases.py; all by default')
  parser.add_argument('--rounds', type=int, default=15, help='of both versions; at least 6')
  parser.add_argument('--seconds', type=float, default=2.0, help='of the slower one in a round')
  parser.add_argument('--config', default='configs/gan.py', help='what train.py starts')
  parser.add_argument('--repeats', type=int, default=3, help='starts of either kind; 0 for none')
  parser.add_argument('--json', default='', help='also write the figures here')
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  given = _parse(argv)
  if not (Path(given.before) / 'benchmarks' / 'train_steps.py').exists():
    raise UserError(f'--before={given.before} is no checkout of another version')
  names = given.cases.split(',') if given.cases else list(CASES)
  cases = {name: choose(CASES, name, '--cases') for name in names}
  interval_of_median(range(given.rounds))  # refuses too few before anything is timed
  print('case                  before/s   after/s   after/before [95 % interval]')
  measured = {}
  for name, case in cases.items():
    figures = measured[name] = speeds(case, given.before, given.rounds, given.seconds)
    print(
      f'{name:20} {figures["before"]:9.4g} {figures["after"]:9.4g}   {figures["ratio"]:6.3f} '
      f'[{figures["low"]:.3f}, {figures["high"]:.3f}]',
      flush=True,
    )
  started = starts(given.config, given.before, given.repeats) if given.repeats else {}
  for kind, seconds in started.items():
    print(
      f'{kind} start, s        {seconds["before"]:9.2f} {seconds["after"]:9.2f}   {given.config}'
    )
  if given.json:
    Path(given.json).write_text(json.dumps({'steps': measured, 'starts': started}, indent=2) + '\n')


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
