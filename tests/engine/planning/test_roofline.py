"""The least time of a step and what a run costs, by hand; the form of topologies."""

import math

import pytest

from engine.planning import roofline, targets
from engine.planning.collectives import Collective
from engine.planning.devices import DEVICES, device_of_kind
from engine.planning.estimate import Plan
from engine.planning.search import fits, growing, splits
from errors import UserError


def plan(**changes):
  """Two machines of eight cards; 100 steps."""
  fields = dict(
    mesh={'lane': 1, 'data': 16, 'fsdp': 1, 'tensor': 1},
    exact=True,
    memory={'parameters': 3 * 10**9, 'data': 10**9, 'work': 10**9},
    flops=16 * 989 * 10**12,
    recomputed=4 * 989 * 10**12,
    collectives=(),
    precision='bfloat16',
    steps=100,
    examples=64,
    tokens=0,
  )
  return Plan(**{**fields, **changes})


def test_each_part_by_hand():
  bound = roofline.step_bound(plan(), DEVICES['h100'])
  assert bound.compute == pytest.approx(1.0)
  # All but the data, read and written.
  assert bound.memory == pytest.approx(2 * 4e9 / 3.35e12)
  assert bound.communication == 0 and bound.limit == 'compute' and bound.seconds == bound.compute
  # Of float32 half as many products, in TF32.
  single = roofline.step_bound(plan(precision='float32'), DEVICES['h100'])
  assert single.compute == pytest.approx(989 / 494)


def test_what_goes_between_machines_waits_for_the_network():
  gradients = Collective('all-reduce', 800 * 10**9, tuple(range(16)))
  bound = roofline.step_bound(plan(collectives=(gradients,)), DEVICES['h100'])
  # An eighth of them, twice a half, at 50 GB/s; within the machine twice 7/8 at 450 GB/s.
  assert bound.communication == pytest.approx(max(100 / 50, 1400 / 450))
  twice = roofline.step_bound(plan(collectives=(gradients._replace(times=2),)), DEVICES['h100'])
  assert twice.communication == 2 * bound.communication and twice.limit == 'communication'


def test_repeated_operations_are_no_utilisation():
  h100 = DEVICES['h100']
  assert roofline.utilisation(plan(), h100, 1.0) == pytest.approx(0.75)
  assert roofline.seconds_at(plan(), h100, 0.25) == pytest.approx(3.0)


def test_time_energy_and_money():
  cost = roofline.run_cost(plan(), seconds=72.0, watts=700, price=3.0, electricity=0.5)
  assert cost.hours == 2 and cost.energy == pytest.approx(16 * 0.7 * 2)
  assert cost.money == pytest.approx(16 * 2 * 3 + 0.5 * 16 * 0.7 * 2)
  unknown = roofline.run_cost(plan(), seconds=72.0, watts=0, price=None, electricity=None)
  assert unknown.energy is None and unknown.money is None


def test_a_device_keeps_some_memory_to_itself():
  assert fits(plan(), 5.3e9) and not fits(plan(), 5.2e9)


@pytest.mark.parametrize(
  'name, number, topology',
  [
    ('tpu-v5e', 1, '1x1'), ('tpu-v5e', 8, '2x4'), ('tpu-v5e', 256, '16x16'),
    ('tpu-v6e', 32, '4x8'), ('tpu-v5p', 4, '2x2x1'), ('tpu-v5p', 128, '4x4x8'),
    ('tpu-v5p', 512, '8x8x8'), ('tpu-v5p', 96, '4x4x6'), ('h100', 64, ''), ('cpu', 3, ''),
  ],
)  # fmt: skip
def test_topologies_are_close_to_a_cube(name, number, topology):
  target = targets.choose_target(name, number, '')
  assert target.topology == topology
  if topology:
    assert targets.topology_size(name, topology) == number


def test_what_is_no_target():
  with pytest.raises(UserError, match=r'--device=tpu-v5 .*did you mean "tpu-v5'):
    targets.choose_target('tpu-v5', 4, '')
  with pytest.raises(UserError, match='512 devices are more than a slice of tpu-v5e'):
    targets.choose_target('tpu-v5e', 512, '')
  with pytest.raises(UserError, match='--topology=4x4 has no effect on --device=h100'):
    targets.choose_target('h100', 16, '4x4')
  for topology in ('4x4x4', '4', '4x', '0x4', 'a'):
    with pytest.raises(UserError, match='which has 2 sizes, such as 8x8'):
      targets.topology_size('tpu-v5e', topology)
  with pytest.raises(UserError, match='leave it out'):
    targets.topology_size('h100', '4x4')


def test_meshes_are_completed():
  assert targets.complete_mesh({'fsdp': 4, 'data': -1}, 16) == dict(
    lane=1, data=4, fsdp=4, tensor=1
  )
  assert targets.complete_mesh({'data': -1}, 0) == dict(lane=1, data=1, fsdp=1, tensor=1)
  with pytest.raises(UserError, match='leaves data and fsdp open'):
    targets.complete_mesh({'data': -1, 'fsdp': -1}, 16)
  for mesh in ({'fsdp': 4}, {'fsdp': 3, 'data': -1}):
    with pytest.raises(UserError, match='make them agree'):
      targets.complete_mesh(mesh, 16)


def test_meshes_of_a_search():
  start = dict(lane=1, data=2, fsdp=1, tensor=2)
  assert [mesh['fsdp'] for mesh in growing(start, 'fsdp', 16)] == [1, 2, 4]
  pairs = [(mesh['data'], mesh['fsdp']) for mesh in splits(start, 24)]
  assert pairs == [(12, 1), (6, 2), (3, 4)]
  assert all(math.prod(mesh.values()) == 24 for mesh in splits(start, 24))
  with pytest.raises(UserError, match='--sweep=9'):
    list(splits(start, 9))


def test_kinds_of_devices():
  assert device_of_kind('TPU v5 lite') is DEVICES['tpu-v5e']
  assert device_of_kind('TPU v5') is DEVICES['tpu-v5p']
  assert device_of_kind('NVIDIA H100 80GB HBM3') is DEVICES['h100']
  assert device_of_kind('NVIDIA H100 NVL') is DEVICES['h100-nvl']
  assert device_of_kind('cpu') is None


def test_every_device_has_sane_figures_and_a_source():
  for name, device in DEVICES.items():
    assert device.half >= device.single > 1e13 and device.memory > 1e10, name
    assert device.memory < device.bandwidth < device.half, name
    assert device.network < device.links < device.bandwidth and device.source, name
    assert (device.axes > 1) == bool(device.topology), name
    assert bool(device.watts) != name.startswith('tpu'), name
