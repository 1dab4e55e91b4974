"""A list of results, such as docs/results.json: rows that evaluate.py --verify computes anew."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import files
from commands.result_files import Result, as_result, read_content
from errors import UserError

# What a row has of the content of metrics.json.
_KEPT = ('metrics', 'standard_errors', 'intervals', 'standard_deviations', 'lanes', 'made_by')


class Row(NamedTuple):
  """A row of such a list.

  Attributes:
    name: of the row; no other has it.
    commands: that train and evaluate the run, in order.
    run: the fingerprint of its checkpoint; of several, joined by '+'.
    content: the row as it is, with the keys of a metrics.json.
    result: its figures.
  """

  name: str
  commands: Sequence[str]
  run: str
  content: Mapping[str, Any]
  result: Result


def as_rows(content: Sequence[Any], path: str) -> list[Row]:
  """Returns the rows of a list that was read from `path`.

  Raises:
    UserError: a row is damaged, or two have one name.
  """
  rows: list[Row] = []
  for number, each in enumerate(content):
    where = f'{path}, row {number}'
    again = 'python -m tools.record_result again'
    fields = [each.get(key) if isinstance(each, dict) else None for key in ('name', 'commands')]
    name, commands = fields
    if (
      not isinstance(name, str)
      or not isinstance(commands, list)
      or not all(isinstance(command, str) for command in commands)
    ):
      raise UserError(f'{where} is damaged: it has no "name" and "commands"; run {again}')
    result = as_result(each, name, f'{where} ({name})', again)
    if each.get('run') != fingerprint(result):
      raise UserError(f'{where} ({name}) is damaged: "run" is not the fingerprint; run {again}')
    if any(row.name == name for row in rows):
      raise UserError(f'{path} has two rows "{name}"; remove or rename one')
    rows.append(Row(name, commands, each['run'], each, result))
  return rows


def fingerprint(result: Result) -> str:
  """Returns the fingerprints of the checkpoints that a result was computed from, joined by '+'."""
  return '+'.join(map(str, result.made_by['fingerprints'].values()))


def record_result(
  metrics: str, name: str, into: str, commands: Sequence[str], note: str = ''
) -> None:
  """Adds the figures of an evaluated run to a list of results, in place of a row of that name.

  Args:
    metrics: the run's metrics.json.
    name: of the row.
    into: the list, a .json; made if it is missing.
    commands: that trained the run; empty to keep those of the row of that name.
    note: what is to be known of the row; '' to keep that of the row of that name.

  Raises:
    UserError: a file is damaged or cannot be written, or there is no command.
  """
  if not name:
    raise UserError('--name= is empty; give the name of the row, e.g. --name=gan')
  if not into.endswith('.json'):
    raise UserError(f'--into={into} must end in .json')
  content = read_content(metrics)
  if not isinstance(content, dict):
    raise UserError(f'{metrics} is no metrics.json of a run; give --metrics=RUN/metrics.json')
  result = as_result(content, metrics, metrics, 'python evaluate.py --workdir=RUN')
  if not all(result.made_by['fingerprints'].values()):
    raise UserError(f'{metrics} holds no fingerprint of its checkpoint; evaluate the run again')
  old = read_content(into) if files.path(into).exists() else []
  if not isinstance(old, list):
    raise UserError(f'--into={into} is no list of results; give another file')
  rows = {row.name: dict(row.content) for row in as_rows(old, into)}
  before = rows.get(name, {})
  trained = [*commands] or [*before.get('commands', [])][:-1]
  if not trained:
    raise UserError(
      'give --command, the command that trained the run, e.g. --command="python train.py '
      '--config=configs/gan.py"'
    )
  rows[name] = {
    'name': name,
    'commands': [*trained, result.made_by['command']],
    'note': note or before.get('note', ''),
    'run': fingerprint(result),
    **{key: content[key] for key in _KEPT if key in content},
  }
  for each in rows[name].get('lanes', []):
    each.pop('tables', None)
  try:
    files.write_json(into, [*rows.values()])
  except OSError as error:
    reason = files.why_not_written(files.path(into).parent, error)
    raise UserError(f'cannot write --into={into}: {reason}') from error
  what = 'replaced' if before else 'added'
  print(f'{what} "{name}" in {into}: {len(result.names)} figures, run {rows[name]["run"]}')
