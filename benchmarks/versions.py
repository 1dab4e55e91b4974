"""Compares the speed of this checkout ("after") with that of another version ("before").

  git worktree add /tmp/before COMMIT
  python -m benchmarks.versions --before=/tmp/before --cases=dense_gan_128,mlp_32

Each version is a process that is kept alive and runs from its own folder. In each round both take
the same steps, one after the other; which goes first alternates. The figure of a case is the median
over rounds of the ratio after/before of steps/s: above 1 this checkout is faster. Its interval
covers the median with a probability of at least 95 %, whatever the distribution (order statistics;
Conover 1999, section 3.2). Then the startup times of train.py are measured, as in
`benchmarks/startup.py`.
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
  """Runs one case; returns both median speeds in steps/s, the median ratio and its interval."""
  command = [sys.executable, '-m', f'benchmarks.{case.program}', *case.config]
  sides = {
    name: Side(command, dict(os.environ), folder)
    for name, folder in (('before', before), ('after', ROOT))
  }
  for side in sides.values():
    side.speed('warm', case.steps)
  slower = min(side.speed('warm', 3 * case.steps) for side in sides.values())
  steps = max(case.steps, round(slower * seconds))
  measured: dict[str, list[float]] = {name: [] for name in sides}
  for i in range(rounds):
    for name in _alternating(sides, i):
      measured[name].append(sides[name].speed('run', steps))
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
  """Returns the median seconds to the first step, `cold` and `warm`, of both versions."""
  folders = {'before': before, 'after': ROOT}
  measured = {kind: {name: [] for name in folders} for kind in ('cold', 'warm')}
  for i in range(repeats):
    with tempfile.TemporaryDirectory() as caches:
      for kind in measured:
        for name in _alternating(folders, i):
          cache = f'{caches}/{name}'
          measured[kind][name].append(startup.first_step(config, cache, folders[name]))
  return {
    kind: {name: statistics.median(seconds) for name, seconds in sides.items()}
    for kind, sides in measured.items()
  }


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
  """Returns the order statistics that cover the median with a probability of at least 95 %.

  Raises:
    UserError: there are fewer than six values, of which even the extremes do not.
  """
  n = len(values)
  # The largest k with P(B ≤ k − 1) ≤ 0.025 for B ~ Binomial(n, ½).
  k = max(k for k in range(n) if sum(math.comb(n, i) for i in range(k)) <= 0.025 * 2**n)
  if not k:
    raise UserError(f'--rounds={n} is too few for an interval; give at least 6')
  ordered = sorted(values)
  return ordered[k - 1], ordered[-k]


def _alternating(names: Iterable[str], i: int) -> list[str]:
  """Returns both names in the order for round i, which alternates."""
  return list(names)[:: -1 if i % 2 else 1]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--before', required=True, help='folder of the other version, a worktree')
  parser.add_argument('--cases', default='', help='names in benchmarks/cases.py; all by default')
  parser.add_argument('--rounds', type=int, default=15, help='number of rounds; at least 6')
  parser.add_argument(
    '--seconds', type=float, default=2.0, help='approximate time of the slower version in a round'
  )
  parser.add_argument(
    '--config', default='configs/gan.py', help='config that the startup times are of'
  )
  parser.add_argument(
    '--repeats', type=int, default=3, help='number of cold and of warm starts; 0 for none'
  )
  parser.add_argument('--json', default='', help='a file to write the figures to as well')
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  args = _parse(argv)
  if not (Path(args.before) / 'benchmarks' / 'train_steps.py').exists():
    raise UserError(
      f'--before={args.before} is no checkout of another version; make one with git worktree add'
    )
  names = args.cases.split(',') if args.cases else list(CASES)
  cases = {name: choose(CASES, name, '--cases') for name in names}
  interval_of_median(range(args.rounds))  # raises if there are too few, before anything is timed
  print('case                  before/s   after/s   after/before [95 % interval]')
  measured = {}
  for name, case in cases.items():
    figures = measured[name] = speeds(case, args.before, args.rounds, args.seconds)
    print(
      f'{name:20} {figures["before"]:9.4g} {figures["after"]:9.4g}   {figures["ratio"]:6.3f} '
      f'[{figures["low"]:.3f}, {figures["high"]:.3f}]',
      flush=True,
    )
  started = starts(args.config, args.before, args.repeats) if args.repeats else {}
  for kind, seconds in started.items():
    print(
      f'{kind} start, s        {seconds["before"]:9.2f} {seconds["after"]:9.2f}   {args.config}'
    )
  if args.json:
    Path(args.json).write_text(json.dumps({'steps': measured, 'starts': started}, indent=2) + '\n')


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
