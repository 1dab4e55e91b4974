"""Records golden values anew: python -m tests.golden.record --family=vae --why="…"

They stand in tests/golden/FAMILY.json, beside every sentence that was given for them: what changed,
and why the values were to change with it. `--dry_run` says how far today's values are from the
recorded ones and writes nothing; under other XLA_FLAGS it shows what rounding makes of them. A new
family needs `--tolerance` (first step, later, run) and its `--reason`; they are kept from then on.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.conftest import settings
from tests.golden import values
from tests.golden.values import Tolerance

_LEAST = 1e-3
_SHOWN = 12


def main(argv: Sequence[str] | None = None) -> None:
  given = _parse(argv)
  with tempfile.TemporaryDirectory(prefix='atelier-golden-') as folder:
    # Before jax is imported; as in the tests.
    os.environ.update(settings(folder), ATELIER_CACHE=f'{folder}/cache')
    for family in given.family or values.families():
      _renew(family, given)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--family', action='append', help='which one; several times for several')
  parser.add_argument('--why', default='', help='one sentence: why the values change')
  parser.add_argument('--dry_run', action='store_true', help='only compare')
  parser.add_argument('--tolerance', nargs=3, type=float, help='of the first step, later, the run')
  parser.add_argument('--reason', default='', help='of the tolerance')
  given = parser.parse_args(argv)
  if not given.dry_run and len(given.why.split()) < 3:
    parser.error('give --why="…": one sentence that says why the values change')
  if (given.tolerance is None) != (not given.reason):
    parser.error('--tolerance and --reason go together')
  for family in given.family or ():
    if given.tolerance is None and family not in values.families():
      parser.error(f'"{family}" has no values yet: give --tolerance and --reason for it')
  return given


def _renew(family: str, given: argparse.Namespace) -> None:
  """Says how far a family is from what is recorded and, but for a dry run, records it."""
  old = values.read(family)
  new = {**_five_steps(family), 'run': _short_run(family)}
  tolerance = old['tolerance']
  if given.tolerance is not None:
    tolerance = Tolerance(*given.tolerance, _LEAST, {}, given.reason)._asdict()
  for what, recorded, now in _parts(old, new):
    lines, farthest = values.compare(recorded, now, Tolerance(**tolerance))
    print(f'{family}, {what}: {len(lines)} of {len(now)} differ ({farthest:.2g} × tolerance)')
    print(*(f'  {line}\n' for line in lines[:_SHOWN]), sep='', end='', flush=True)
  if not given.dry_run:
    why = [*old['why'], given.why]
    values.write(family, {'why': why, 'jax': values.JAX_VERSION, 'tolerance': tolerance, **new})


def _five_steps(family: str) -> dict[str, dict[str, Any]]:
  """`steps` and `one_key` of every config of the family."""
  from tests.golden import adapter, tiny

  steps, one_key = {}, {}
  for name, data in tiny.cases():
    if values.family_of(tiny.config_of(name, data).objective.name) != family:
      continue
    description, training = tiny.open_training(name, data)
    entry = _entry(tiny.run(description, training, training.start()))
    other = adapter.with_other_noise(training.start())
    drawn = _differences(entry, _entry(tiny.run(description, training, other)))
    steps[f'{name}:{data}'] = {**entry, 'drawn': drawn}
    if drawn['metrics'] or drawn['evaluation']:
      one_key[f'{name}:{data}'] = _entry(tiny.five_steps_of_one_key(name, data))
  return {'steps': steps, 'one_key': one_key}


def _entry(outcome: Any) -> dict[str, Any]:
  return {'metrics': outcome.metrics, 'evaluation': outcome.evaluation}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
  """Which values of two outcomes differ in any bit, metrics with the first step of it."""
  metrics = {
    name: next(i for i, (a, b) in enumerate(zip(steps, other['metrics'][name])) if a != b)
    for name, steps in one['metrics'].items()
    if steps != other['metrics'][name]
  }
  evaluation = [n for n, value in one['evaluation'].items() if value != other['evaluation'][n]]
  return {'metrics': metrics, 'evaluation': evaluation}


def _short_run(family: str) -> dict[str, Any]:
  from tests.golden import short_runs

  if family not in short_runs.RUNS:
    sys.exit(f'error: add a short run of {family} to RUNS in tests/golden/short_runs.py')
  return {'noise': short_runs.RUNS[family].noise, 'metrics': short_runs.last_metrics(family)}


def _parts(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, float], dict[str, float]]]:
  """(what, recorded values, values now): those of steps without noise apart from those with it."""
  drawn = values.drawn_names({**new['steps'], **old['steps']})
  before, now = (values.flat_cases(recorded['steps']) for recorded in (old, new))
  for what, noisy in (('without noise', False), ('with noise', True)):
    yield (
      what,
      *({n: v for n, v in side.items() if (n in drawn) is noisy} for side in (before, now)),
    )
  yield 'all keys one', *(values.flat_cases(recorded['one_key']) for recorded in (old, new))
  yield 'run', *(values.flat({'run': recorded['run']['metrics']}) for recorded in (old, new))


if __name__ == '__main__':
  main()
