"""Recorded figures computed anew from their checkpoints, and whether they hold."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import files
from commands import machine, recorded_results
from commands.evaluate_run import Evaluated, Request, as_content, evaluate_lanes, open_request
from commands.list_runs import aligned
from commands.result_files import Result, as_result, expand, figures_of, read_content
from commands.run_records import find_runs, read_fingerprint, saved_steps
from engine import run
from engine.build import to_plain
from engine.code_version import code_version
from engine.declarations import check_section
from engine.memory import memory_errors
from errors import UserError

# The largest relative difference where devices or versions are not the same.
TOLERANCE = 1e-3
# Exit codes.
HOLD, DO_NOT_HOLD, NOT_VERIFIED = 0, 1, 2


class Verified(NamedTuple):
  """A figure that was computed anew.

  Attributes:
    name: of the figure; of several lanes also which lane.
    recorded: its value, and where it has them standard error, ends of the interval and deviation.
    found: likewise; empty where it was not computed.
    holds: whether they are the same.
  """

  name: str
  recorded: Sequence[float | None]
  found: Sequence[float | None]
  holds: bool


@memory_errors('a device with more memory')
def verify(path: str, folders: Sequence[str]) -> int:
  """Computes the figures of a file anew, prints which hold, and returns the exit code.

  Args:
    path: a metrics.json, or a list of results as `commands.recorded_results` writes it.
    folders: where runs are looked for; empty for the folder of a metrics.json and the one that it
      names, and for `runs` for a list of results.

  Returns:
    0 where all hold that could be computed, 1 where one does not, 2 where none failed but a row of
    the list could not be verified though its run is at hand.

  Raises:
    UserError: the file, its run or its data cannot be read or are not those that were recorded.
  """
  content = read_content(path)
  if isinstance(content, list):
    return _verify_rows(path, recorded_results.as_rows(content, path), folders)
  result = as_result(content, path, path, 'python evaluate.py --workdir=RUN')
  near = [str(files.path(path).parent), result.made_by['workdir']]
  found = expand(folders) if folders else near
  workdir = _run_of(result, path, found)
  failed = _verify_content(content, result._replace(run=workdir), path)
  return DO_NOT_HOLD if failed else HOLD


def _run_of(result: Result, path: str, candidates: Sequence[str]) -> str:
  """The run that the figures were computed from, among some folders.

  Raises:
    UserError: there is none; says which checkpoint differs.
  """
  for folder in candidates:
    if _is_run_of(result, folder):
      return folder
  runs = [folder for folder in candidates if (files.path(folder) / run.CONFIG).exists()]
  if not runs:
    raise UserError(
      f'{path} was computed from {result.made_by["workdir"]}, and there is no run; give the folder '
      'that holds it with --runs=FOLDER'
    )
  step, fingerprint = next(iter(result.made_by['fingerprints'].items()))
  here = {folder: read_fingerprint(folder, step) for folder in runs}
  others = [folder for folder, found in here.items() if found]
  if others:
    raise UserError(
      f'checkpoint {step} of {others[0]} (fingerprint {here[others[0]]}) is not the one that '
      f'{path} was computed from ({fingerprint}); put that run back, or evaluate this one with '
      f'python evaluate.py --workdir={others[0]}'
    )
  steps = ', '.join(map(str, saved_steps(runs[0]))) or 'none'
  raise UserError(
    f'{runs[0]} has no checkpoint {step} any more, which {path} was computed from (there are: '
    f'{steps}); evaluate it again with python evaluate.py --workdir={runs[0]}'
  )


def _is_run_of(result: Result, folder: str) -> bool:
  """Whether a folder has the checkpoints that figures were computed from."""
  fingerprints = result.made_by['fingerprints']
  return bool(fingerprints) and all(
    fingerprint and read_fingerprint(folder, step) == fingerprint
    for step, fingerprint in fingerprints.items()
  )


def _verify_rows(path: str, rows: Sequence[recorded_results.Row], folders: Sequence[str]) -> int:
  if folders:
    runs = expand(folders)
  else:
    runs = find_runs('runs') if files.path('runs').is_dir() else []
  at_hand = {row.name: next((r for r in runs if _is_run_of(row.result, r)), '') for row in rows}
  number = sum(map(bool, at_hand.values()))
  print(f'verify   {path}: {len(rows)} rows, {number} with their run at hand\n', flush=True)
  failed, refused = [], []
  for row in rows:
    if not at_hand[row.name]:
      continue
    where = f'the row "{row.name}" of {path}'
    try:
      if _verify_content(row.content, row.result._replace(run=at_hand[row.name]), where):
        failed.append(row.name)
    except UserError as error:
      print(f'error: {where} cannot be verified: {error}', file=sys.stderr)
      refused.append(row.name)
  absent = [row for row in rows if not at_hand[row.name]]
  if absent:
    print('Not verified, since no run with their fingerprint is at hand:')
  for row in absent:
    print('\n'.join([f'  {row.name} (run {row.run})', *(f'    {c}' for c in row.commands)]))
  if failed:
    print(f'do not hold: {", ".join(failed)}')
  return DO_NOT_HOLD if failed else NOT_VERIFIED if refused else HOLD


def _verify_content(content: Mapping[str, Any], result: Result, where: str) -> bool:
  """Prints which figures hold; returns whether one does not."""
  made_by = result.made_by
  repeatable = [name for name, each in made_by['provenance'].items() if each.get('repeatable')]
  recorded = dict(_numbers(content))
  wanted = {name: numbers for name, numbers in recorded.items() if _evaluator(name) in repeatable}
  timed = [name for name in recorded if name not in wanted]
  if not wanted:
    raise UserError(f'{where} holds no figure that can be verified: wall times alone differ')
  print(f'verify   {where}: {len(wanted)} figures of {result.run}', flush=True)
  evaluated, here = _evaluate(result, repeatable, where)
  differences = machine.differences(made_by, here)
  exact = not differences
  # As a file gives them back.
  found = dict(_numbers(json.loads(json.dumps(as_content(evaluated)))))
  verified = [
    Verified(name, numbers, found.get(name, ()), same(numbers, found.get(name, ()), exact))
    for name, numbers in wanted.items()
  ]
  _show(verified, timed)
  failed = [each.name for each in verified if not each.holds]
  rule = 'equal bits, for devices, processor, threads, compiler flags and versions are as recorded'
  if differences:
    rule = f'within {TOLERANCE:g} relative, for these differ: {"; ".join(differences)}'
  print(f'{len(verified) - len(failed)} of {len(verified)} figures hold ({rule})')
  if failed:
    print(f'do not hold: {", ".join(failed)}')
    _explain_code(made_by.get('code'))
  print()
  return bool(failed)


def _explain_code(recorded: Any) -> None:
  """Says where the code is not the one that figures were recorded with."""
  now = code_version()
  if isinstance(recorded, Mapping) and now is not None and recorded != now:
    texts = [
      f'{str(code.get("commit"))[:12]}{" with changes" if code.get("changed") else ""}'
      for code in (recorded, now)
    ]
    print(f'code     recorded by commit {texts[0]}, computed here by {texts[1]}')


def _evaluate(
  result: Result, evaluators: Sequence[str], where: str
) -> tuple[list[Evaluated], dict[str, Any]]:
  """Evaluates the lanes of a result as it was made; returns them and `machine.machine`.

  Raises:
    UserError: the data or the extractors are not those that were recorded.
  """
  made_by = result.made_by
  kept = {name: made_by['evaluators'][name] for name in evaluators}
  section = to_plain(kept)
  check_section('evaluators', section)
  split = made_by['split'] if any('split' in each for each in section.values()) else ''
  seed, lane = made_by.get('seed'), made_by['lane']
  steps = [each.step for each in result.lanes]
  # Lanes that were each evaluated at their own best are opened one by one.
  parts = [(steps[0], lane)] if len({*steps}) == 1 else [*zip(steps, range(len(steps)))]
  evaluated: list[Evaluated] = []
  for step, which in parts:
    opened = open_request(
      Request(
        result.run,
        '',
        checkpoint=str(step),
        split=split,
        seed=seed if isinstance(seed, int) else None,
        average=made_by['average'],
        lane=which,
        evaluators=ConfigDict(section),
      )
    )
    _check_provenance(opened.provenance, {n: made_by['provenance'][n] for n in evaluators}, where)
    evaluated += evaluate_lanes(opened)
  return evaluated, machine.machine(opened.session.mesh)


def _check_provenance(now: Any, recorded: Any, where: str) -> None:
  """Raises UserError where figures would be computed from other data, counts or extractors."""
  changed = run.differences(recorded, json.loads(json.dumps(now)))
  if changed:
    raise UserError(
      f'what {where} was computed from has changed ({"; ".join([*changed.values()][:3])}); put it '
      'back, or evaluate the run again'
    )


def _evaluator(name: str) -> str:
  return name.partition('/')[0]


def _numbers(content: Mapping[str, Any]) -> Iterator[tuple[str, list[float | None]]]:
  """The name of every figure of a metrics.json, and all its numbers; those of lanes after it."""
  deviations = content.get('standard_deviations', {})
  for name, figure in figures_of(content).items():
    interval = figure.interval or (None, None)
    yield name, [figure.value, figure.error, *interval, deviations.get(name)]
  for lane in content.get('lanes', []):
    for name, numbers in _numbers(lane):
      yield f'{name} of {lane["label"]}', numbers


def same(recorded: Sequence[float | None], found: Sequence[float | None], exact: bool) -> bool:
  """Returns whether the numbers of a figure hold.

  Args:
    recorded: value, standard error, ends of the interval, standard deviation; None for what there
      is not.
    found: likewise, computed anew.
    exact: whether they must be equal; else within `TOLERANCE` of the value, or of half its interval
      where that is wider, and errors and deviations of themselves.
  """
  if len(recorded) != len(found) or exact:
    return list(recorded) == list(found)
  value, _, low, high, _ = recorded
  half = (high - low) / 2 if low is not None and high is not None else 0.0
  scale = max(abs(value or 0.0), half)
  scales = [scale, None, scale, scale, None]
  return all(_close(a, b, each) for a, b, each in zip(recorded, found, scales))


def _close(a: float | None, b: float | None, scale: float | None) -> bool:
  if a is None or b is None:
    return a is b
  return math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE * (abs(a) if scale is None else scale))


def _show(verified: Sequence[Verified], timed: Sequence[str]) -> None:
  rows = [('figure', 'recorded', 'found', 'holds')]
  for each in verified:
    shown = [_shown(numbers, each.holds) for numbers in (each.recorded, each.found)]
    rows.append((each.name, *shown, 'yes' if each.holds else 'NO'))
  rows += [(name, '', '', 'not verifiable: a wall time') for name in timed]
  print('\n' + '\n'.join(aligned(rows)) + '\n')


def _shown(numbers: Sequence[float | None], holds: bool) -> str:
  """The value; of one that does not hold every number, with all digits."""
  if not numbers:
    return 'not computed'
  value = 'not finite' if numbers[0] is None else f'{numbers[0]:.6g}' if holds else repr(numbers[0])
  if holds:
    return value
  _, error, low, high, deviation = numbers
  parts = [value]
  if error is not None:
    parts.append(f'error {error!r}')
  if low is not None:
    parts.append(f'{low!r} to {high!r}')
  if deviation is not None:
    parts.append(f'sd {deviation!r}')
  return ', '.join(parts)
