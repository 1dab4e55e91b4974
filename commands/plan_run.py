"""Plans a run on devices that need not be here: what it holds, computes, sends and costs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from commands import plan_report
from commands.plan_report import Prices, mesh_name
from commands.run_flags import parse_mesh
from data.resident import Resident
from data.transforms import check_neighbours
from engine import summaries
from engine.build import to_plain
from engine.feeds import describe_feed
from engine.memory import is_out_of_memory
from engine.optimizers import check_schedules
from engine.parameter_table import parameter_table
from engine.planning import search, targets
from engine.planning.devices import Device, find_device
from engine.planning.estimate import Plan, make_plan, state_bytes
from engine.planning.targets import Target
from engine.program import trace_step
from engine.session import Session, open_session
from errors import UserError

# Most devices that --fit tries of a kind whose number nothing limits.
_MOST = 1024


class Question(NamedTuple):
  """The flags of plan.py, checked.

  Attributes:
    device: the name of the device.
    mesh: the mesh of the plan, or the one that a search starts from.
    topology: how the devices are connected; '' to choose.
    others: the meshes of a search; empty without one.
    fit: whether the first mesh of the search that holds the run is looked for.
    prices: what a run is charged for.
  """

  device: str
  mesh: Mapping[str, int]
  topology: str
  others: tuple[Mapping[str, int], ...]
  fit: bool
  prices: Prices

  @property
  def devices(self) -> int:
    """The number of devices of the largest mesh."""
    return max(_size(mesh) for mesh in (*self.others, self.mesh))


def read_question(
  config: ConfigDict,
  *,
  device: str,
  mesh: str | None,
  topology: str,
  fit: str,
  sweep: str,
  prices: Prices,
) -> Question:
  """Reads the flags of plan.py; jax need not have started.

  Args:
    config: the run; its mesh counts where `mesh` is not given.
    device: the name of a device.
    mesh: sizes of axes, e.g. 'data:16,fsdp:16'; axes that are not named are 1.
    topology: how TPUs are connected, e.g. '16x16'.
    fit: the axis along which the smallest mesh that holds the run is looked for; '' for none.
    sweep: a number of devices, or meshes separated by ';'; '' for none.
    prices: what a run is charged for.

  Raises:
    UserError: a flag has no such value, or they contradict each other.
  """
  known = find_device(device)
  if fit and sweep:
    raise UserError(f'--fit={fit} and --sweep={sweep} are two searches; give one of them')
  if topology and (fit or sweep):
    raise UserError(
      f'--topology={topology} is that of one mesh, and --{"fit" if fit else "sweep"} tries '
      'several; leave it out'
    )
  number = targets.topology_size(device, topology) if topology else 0
  asked = parse_mesh(mesh) if mesh is not None else to_plain(config.mesh)
  start = targets.complete_mesh(asked, number)
  others: Sequence[Mapping[str, int]] = ()
  if fit:
    if fit not in start:
      raise UserError(
        f'--fit={fit} is no axis of a mesh; there are: {", ".join(start)}, e.g. --fit=fsdp'
      )
    most = known.domain if known is not None and known.topology else _MOST
    others = tuple(search.growing(start, fit, most))
  elif re.fullmatch(r'[1-9]\d*', sweep):
    others = tuple(search.splits(start, int(sweep)))
  elif sweep:
    others = tuple(targets.complete_mesh(parse_mesh(each), 0) for each in sweep.split(';'))
  return Question(device, start, topology, others, bool(fit), prices)


def prepare(question: Question) -> None:
  """Lets jax start with the CPU devices that are compiled for; call before it starts.

  Where libtpu compiles there is one: hundreds would be threads that do nothing.
  """
  jax.config.update('jax_platforms', 'cpu')
  if not (choose_target(question, question.mesh).topology and targets.has_libtpu()):
    jax.config.update('jax_num_cpu_devices', question.devices)
  # What is compiled here runs nowhere.
  jax.config.update('jax_enable_compilation_cache', False)


def plan_run(config: ConfigDict, question: Question) -> None:
  """Prints the plan of a run, or of the meshes of a search.

  The data set is opened, and prepared in the cache if it is not yet; the program is compiled, and
  no parameter is allocated.

  Raises:
    UserError: training would be refused, no mesh of a search holds the run, or the compiler says
      that it does not fit.
  """
  device = find_device(question.device)
  if not question.others:
    target = choose_target(question, question.mesh)
    planned = _plan(config, target, question.mesh)
    _print_head(planned, target)
    params = planned.session.lane_abstract.params
    plan_report.print_block('parameters', parameter_table(params))
    plan_report.print_plan(planned.plan, device, question.prices)
    return
  if question.fit and device is None:
    raise UserError('--fit needs a device that has memory of its own; choose another --device')
  found = _search(config, question, device)
  if not question.fit:
    return
  if found is None:
    raise UserError(
      f'no mesh of up to {question.devices} devices holds the run; split its state along another '
      'axis, take a smaller config.data.batch_size or a larger config.train.accumulate'
    )
  print(f'\nthe smallest of them is --mesh={mesh_name(found.mesh)}')
  plan_report.print_plan(found, device, question.prices)


def _search(config: ConfigDict, question: Question, device: Device | None) -> Plan | None:
  """Prints the table of a search; returns the plan of the mesh that fits, where one is sought."""
  memory = device.memory if device is not None else 0.0

  def plan(mesh: Mapping[str, int]) -> Plan:
    most = search.USABLE * memory if question.fit else 0.0
    return _plan(config, choose_target(question, mesh), mesh, most).plan

  def stop(plan: Plan) -> bool:
    return question.fit and search.fits(plan, memory)

  tried = list(search.try_meshes(question.others, plan, stop))
  plans = [each.plan for each in tried if each.plan is not None]
  if not plans:
    raise UserError(tried[0].reason)
  print(f'{question.device}: {_compiler(choose_target(question, plans[-1].mesh))}\n')
  print('\n'.join(plan_report.table(tried, device, question.prices)))
  return plans[-1] if stop(plans[-1]) else None


def choose_target(question: Question, mesh: Mapping[str, int]) -> Target:
  """Returns the devices that one mesh is planned for."""
  return targets.choose_target(question.device, _size(mesh), question.topology)


class _Planned(NamedTuple):
  """A plan, the session that it is of, and whether the split lives on the devices."""

  plan: Plan
  session: Session
  resident: bool


def _plan(
  config: ConfigDict, target: Target, mesh: Mapping[str, int], most: float = 0.0
) -> _Planned:
  """The plan of a run on one mesh.

  Args:
    config: the run.
    target: the devices.
    mesh: their number along each axis.
    most: bytes that the state may take at most; 0 for any.
  """
  config = config.copy_and_resolve_references()
  config.mesh.update(mesh)
  session = open_session(config, devices=targets.open_devices(target))
  check_neighbours(session.data.augment, session.per_step)
  check_schedules(to_plain(config.optimizer))
  state = sum(state_bytes(session).values())
  if most and state > most:
    raise UserError(
      f'the state of the run alone takes {state / 2**20:,.0f} MiB of a device; split it along fsdp '
      'or tensor with config.sharding'
    )
  traced, feed = trace_step(session), describe_feed(session)
  with _memory_said(target):
    plan = make_plan(session, feed, traced, target.exact)
  return _Planned(plan, session, isinstance(feed, Resident))


@contextlib.contextmanager
def _memory_said(target: Target) -> Iterator[None]:
  """Raises UserError if the compiler finds a program too large for its devices."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not is_out_of_memory(error):
      raise
    used = re.search(r'Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?)', str(error))
    amount = f'{used[1]} of the {used[2]} of a device' if used else 'more than a device has'
    raise UserError(
      f'the run does not fit {target.number} × {target.name}: it needs {amount}; look for a mesh '
      'that holds it with --fit=fsdp, or take a smaller config.data.batch_size or a larger '
      'config.train.accumulate'
    ) from error


def _print_head(planned: _Planned, target: Target) -> None:
  session = planned.session
  shape = ' × '.join(f'{name} {size}' for name, size in session.mesh.shape.items())
  form = f' in the topology {target.topology}' if target.topology else ''
  print(f'devices  {target.number} × {target.name}{form}, mesh {shape}')
  if target.device is not None:
    print(f'figures  {target.device.source}')
  print(f'compiled {_compiler(target)}')
  print(f'data     {summaries.data(session.spec, planned.resident)}')
  print(f'modules  {summaries.modules(session.lane_abstract, session.lanes.number)}')
  print(f'length   {plan_report.summary_of_run(session)}')


def _compiler(target: Target) -> str:
  if target.exact:
    return 'for these devices'
  wanted = '; pip install libtpu to compile for TPUs' if target.topology else ''
  return (
    'for as many CPU devices in their place: memory and what is sent are estimates' + wanted
  )  # fmt: skip


def _size(mesh: Mapping[str, int]) -> int:
  size = 1
  for extent in mesh.values():
    size *= extent
  return size
