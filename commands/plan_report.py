"""Formats the plan of a run for the terminal."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.planning import roofline
from engine.planning.collectives import bytes_by_axes
from engine.planning.devices import Device
from engine.planning.estimate import Plan
from engine.planning.search import Tried, fits
from engine.session import Session

_MIB = 2**20
_PREFIXES = ('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')


class Prices(NamedTuple):
  """Prices and assumptions by which the cost of a run is computed.

  Attributes:
    watts: of a device; 0 for what the table of devices says.
    hour: of a device for an hour; None where none is given.
    kwh: of a kWh; None where none is given.
    mfu: the utilisation that is expected, 0 to 1; 0 for none.
  """

  watts: float = 0.0
  hour: float | None = None
  kwh: float | None = None
  mfu: float = 0.0


def print_block(title: str, lines: Sequence[str]) -> None:
  """Prints lines below a title."""
  print(f'\n{title}')
  for line in lines:
    print(f'  {line}')


def print_plan(plan: Plan, device: Device | None, prices: Prices) -> None:
  """Prints memory, operations and communication of a step, and what a run on the device costs."""
  print_block('memory of a device in training', memory_table(plan, device))
  print_block('a step', step_lines(plan))
  if device is not None:
    print_block('the least time of a step', roofline_lines(plan, device))
    print_block('the whole run', cost_lines(plan, device, prices))


def memory_table(plan: Plan, device: Device | None) -> list[str]:
  """Bytes of a device by what they are for, and whether it has as many."""
  rows = {**plan.memory, 'peak': plan.peak}
  width = max(map(len, rows))
  lines = [f'{name:{width}}  {value / _MIB:>12,.2f} MiB' for name, value in rows.items()]
  if not plan.exact:
    lines[-1] += ' (an estimate)'
  if device is not None:
    verdict = 'the run fits' if fits(plan, device.memory) else 'the run does not fit'
    lines.append(f'{"a device has":{width}}  {device.memory / _MIB:>12,.2f} MiB: {verdict}')
  return lines


def step_lines(plan: Plan) -> list[str]:
  """Operations of a step, and what each device sends along the axes of the mesh."""
  repeated = ''
  if plan.recomputed:
    repeated = f', {_short(plan.recomputed)}FLOP of them repeated to need less memory'
  lines = [f'operations (of products and convolutions)  {_short(plan.flops)}FLOP{repeated}']
  for axes, sent in sorted(bytes_by_axes(plan.collectives, plan.mesh).items()):
    where = f' along {axes}' if axes else ''
    lines.append(f'sent by a device{where}  {sent / _MIB:,.2f} MiB')
  return lines


def roofline_lines(plan: Plan, device: Device) -> list[str]:
  """The least time of a step, and the speed that follows from it."""
  bound = roofline.step_bound(plan, device)
  parts = ', '.join(f'{part} {_time(seconds)}' for part, seconds in bound._asdict().items())
  mfu = roofline.utilisation(plan, device, bound.seconds)
  return [
    f'{_time(bound.seconds)}, bound by {bound.limit} ({parts})',
    f'MFU at most {mfu:.1%}, {_speed(plan, bound.seconds)} at most',
  ]


def cost_lines(plan: Plan, device: Device, prices: Prices) -> list[str]:
  """Time, energy and money of the whole run, at the least time of a step and as expected."""
  least = roofline.step_bound(plan, device).seconds
  lines = [f'at least: {_cost(plan, device, least, prices)}']
  if prices.mfu:
    seconds = roofline.seconds_at(plan, device, prices.mfu)
    words = f'{_cost(plan, device, seconds, prices)}; {_speed(plan, seconds)}'
    if seconds < least:
      words = 'faster than the least time; expect less'
    lines.append(f'at an MFU of {prices.mfu:.0%}: {words}')
  return lines


def table(tried: Sequence[Tried], device: Device | None, prices: Prices) -> list[str]:
  """The meshes of a search, one a line: memory, least time and speed, or why there is no plan."""
  head = ['mesh', 'peak MiB', 'fits', 'step at least', 'bound by', 'MFU at most', 'at most', 'cost']
  rows = [_row(each, device, prices) for each in tried]
  plans = [row for row in rows if len(row) > 2]
  if device is None or not any(row[-1] for row in plans):
    head, rows = head[:-1], [row[:-1] if len(row) > 2 else row for row in rows]
    plans = [row for row in rows if len(row) > 2]
  widths = [max(len(row[i]) for row in (head, *plans)) for i in range(len(head))]
  widths[0] = max(len(row[0]) for row in (head, *rows))
  return [
    '  '.join(f'{cell:{width}}' for cell, width in zip(row, widths if len(row) > 2 else widths[:1]))
    + (f'  {row[1]}' if len(row) == 2 else '')
    for row in (head, *rows)
  ]


def _row(each: Tried, device: Device | None, prices: Prices) -> list[str]:
  name = mesh_name(each.mesh)
  if each.plan is None:
    return [name, f'no: {each.reason}']
  peak = f'{each.plan.peak / _MIB:,.0f}'
  if device is None:
    return [name, peak, '', '', '', '', '', '']
  bound = roofline.step_bound(each.plan, device)
  cost = roofline.run_cost(
    each.plan, bound.seconds, prices.watts or device.watts, prices.hour, prices.kwh
  )
  return [
    name,
    peak,
    'yes' if fits(each.plan, device.memory) else 'no',
    _time(bound.seconds),
    bound.limit,
    f'{roofline.utilisation(each.plan, device, bound.seconds):.1%}',
    _speed(each.plan, bound.seconds),
    '' if cost.money is None else f'{cost.money:,.2f}',
  ]


def mesh_name(mesh: Mapping[str, int]) -> str:
  """A mesh as --mesh takes it, without axes of one device."""
  return ','.join(f'{axis}:{size}' for axis, size in mesh.items() if size > 1) or 'data:1'


def summary_of_run(session: Session) -> str:
  """The length of a run in steps and epochs."""
  steps, per_step = session.train.steps, session.per_step
  epochs = steps * per_step / session.spec.n
  each = f' in each of {session.lanes.number} lanes' if session.lanes.number > 1 else ''
  return f'{steps:,} steps of {per_step:,} examples{each}, {epochs:.4g} epochs'


def _cost(plan: Plan, device: Device, seconds: float, prices: Prices) -> str:
  watts = prices.watts or device.watts
  cost = roofline.run_cost(plan, seconds, watts, prices.hour, prices.kwh)
  parts = [_hours(cost.hours)]
  if cost.energy is None:
    parts.append('energy not known (give --watts)')
  else:
    parts.append(f'{cost.energy:,.4g} kWh at {watts:g} W a device')
  if cost.money is not None:
    parts.append(f'money {cost.money:,.2f}')
  return ', '.join(parts)


def _speed(plan: Plan, seconds: float) -> str:
  number, unit = plan.examples * max(plan.tokens, 1), 'tokens' if plan.tokens else 'examples'
  return f'{number / seconds:,.0f} {unit}/s'


def _hours(hours: float) -> str:
  if hours >= 48:
    return f'{hours / 24:,.1f} days'
  return f'{hours:.3g} hours' if hours >= 1 else _time(hours * 3600)


def _time(seconds: float) -> str:
  """'1.23 ms' for 0.00123."""
  for unit, factor in (('s', 1.0), ('ms', 1e-3), ('µs', 1e-6)):
    if seconds >= factor:
      return f'{seconds / factor:.3g} {unit}'
  return f'{seconds / 1e-9:.3g} ns'


def _short(number: int) -> str:
  """'1.23 G' for 1.23e9."""
  thousands = min((len(str(number)) - 1) // 3, len(_PREFIXES) - 1)
  return f'{number / 1000**thousands:.3g} {_PREFIXES[thousands]}'
