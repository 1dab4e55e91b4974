"""The least time of a step on a device, and what a whole run then costs (Williams et al. 2009)."""

from typing import NamedTuple

from engine.planning.devices import Device
from engine.planning.estimate import DATA, Plan


class Bound(NamedTuple):
  """The least seconds of each part of a step, at the peak rates of the device.

  Attributes:
    compute: all operations at the peak.
    memory: the state and all else that is held at the peak, read once and written once.
    communication: what is exchanged, over all links of a device.
  """

  compute: float
  memory: float
  communication: float

  @property
  def seconds(self) -> float:
    """The least seconds of a step: the parts may overlap."""
    return max(self)

  @property
  def limit(self) -> str:
    """The part that takes longest."""
    return max(self._asdict(), key=lambda part: getattr(self, part))


class Cost(NamedTuple):
  """Time, energy and money of a whole run.

  Attributes:
    hours: from its first step to its last.
    energy: kWh of the devices at their full power; None where that is not known.
    money: of the hours of the devices, and of the energy where that has a price; None without one.
  """

  hours: float
  energy: float | None
  money: float | None


def step_bound(plan: Plan, device: Device) -> Bound:
  """Returns the roofline of a step."""
  compute = plan.flops / plan.devices / device.peak(plan.precision)
  # Of resident data a step reads a batch alone.
  memory = 2 * (plan.peak - plan.memory[DATA]) / device.bandwidth
  parts = [each.sent_within_and_beyond(device.domain) for each in plan.collectives]
  within, beyond = (sum(each) for each in zip(*parts)) if parts else (0.0, 0.0)
  return Bound(compute, memory, max(within / device.links, beyond / device.network))


def utilisation(plan: Plan, device: Device, seconds: float) -> float:
  """Returns the model FLOPs utilisation (MFU) of steps of so many seconds; 1 is the peak.

  Operations that are repeated to need less memory do not count (Chowdhery et al. 2022).
  """
  counted = plan.flops - plan.recomputed
  return counted / plan.devices / device.peak(plan.precision) / seconds


def seconds_at(plan: Plan, device: Device, wanted: float) -> float:
  """Returns the seconds of a step at a utilisation (MFU), 0 to 1."""
  return utilisation(plan, device, 1.0) / wanted


def run_cost(
  plan: Plan, seconds: float, watts: float, price: float | None, electricity: float | None
) -> Cost:
  """Returns the time, energy and money of the whole run.

  Args:
    plan: of the run.
    seconds: of a step.
    watts: of a device; 0 where it is not known.
    price: of a device for an hour.
    electricity: of a kWh.
  """
  hours = plan.steps * seconds / 3600
  energy = plan.devices * watts * hours / 1000 if watts else None
  money = None if price is None else plan.devices * hours * price
  if electricity is not None and energy is not None:
    money = (money or 0.0) + energy * electricity
  return Cost(hours, energy, money)
