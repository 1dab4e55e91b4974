"""Prints the config and the plan of a run on the devices here, without training it."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from commands import plan_report
from data.resident import Resident
from engine import run, summaries
from engine.feeds import open_feed
from engine.parameter_table import parameter_table
from engine.planning.devices import device_of_kind
from engine.planning.estimate import make_plan
from engine.preflight import preflight


def dry_run(config: ConfigDict, workdir: str) -> None:
  """Prints what training `config` in `workdir` would be; nothing is written to the folder.

  The data set is read, and prepared in the cache if it is not yet; the program is compiled, and no
  parameter is allocated.

  Raises:
    UserError: training would be refused.
  """
  session, evaluators, _, traced, _ = preflight(config, workdir)
  changes = run.changes(workdir, config, session.spec)
  feed = open_feed(session, 0)
  try:
    plan = make_plan(session, feed, traced)
    data = summaries.data(session.spec, isinstance(feed, Resident))
  finally:
    feed.close()
  if jax.process_index():
    return
  print('\n'.join(_values(config)), end='\n\n')
  for line in changes:
    print(f'changed  {line}')
  print(f'devices  {summaries.devices(session.mesh)}')
  print(f'data     {data}')
  print(f'modules  {summaries.modules(session.lane_abstract, session.lanes.number)}')
  print(f'length   {plan_report.summary_of_run(session)}')
  for reason in evaluators[0].refused.values():
    print(f'note     evaluate.py will refuse this: {reason}')
  plan_report.print_block('parameters', parameter_table(session.lane_abstract.params))
  device = device_of_kind(session.mesh.devices.flat[0].device_kind)
  plan_report.print_plan(plan, device, plan_report.Prices())
  print(f'\nnothing was trained, and nothing was written to {workdir}')


def _values(config: ConfigDict, prefix: str = '--config') -> list[str]:
  """Every option of a config with its value, as it is written on the command line."""
  lines = []
  for key, value in config.items():
    path = f'{prefix}.{key}'
    lines += _values(value, path) if isinstance(value, ConfigDict) else [f'{path}={value}']
  return lines
