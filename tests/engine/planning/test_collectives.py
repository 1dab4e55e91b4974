"""What devices exchange, read from small programs by hand, and from one that XLA compiled."""

import json
import subprocess
import sys

import pytest

from engine.planning.collectives import Collective, axes_of, bytes_by_axes, read_collectives
from tests.conftest import ROOT, environment

MESH = {'lane': 1, 'data': 2, 'fsdp': 4, 'tensor': 1}
LOOPS = """\
HloModule jit_f, entry_computation_layout={()->()}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[8,4]) -> f32[2,4] {
  %sum = f32[8,4]{1,0} all-reduce(%p), channel_id=7, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %part = f32[2,4]{1,0} dynamic-slice(%sum, %zero), dynamic_slice_sizes={2,4}
}

%begin (p: bf16[2,4]) -> bf16[8,4] {
  ROOT %g = bf16[8,4]{1,0} all-gather(%p), channel_id=9, replica_groups=[2,4]<=[8], dimensions={0}
}

%end (p: bf16[2,4]) -> bf16[8,4] {
  ROOT %g = bf16[8,4]{1,0} all-gather(%p), channel_id=9, replica_groups=[2,4]<=[8], dimensions={0}
}

%inner_body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %one = bf16[8,4]{1,0} fusion(%p), kind=kCustom, calls=%begin
  %two = bf16[8,4]{1,0} fusion(%p), kind=kCustom, calls=%end
  %scattered = f32[2,4]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %x)
}

%inner_condition (p: (s32[], f32[8,4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%outer_body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %loop = (s32[], f32[8,4]{1,0}) while(%t), condition=%inner_condition, body=%inner_body
  %mean = (f32[3]{0}, /*index=1*/f32[]) all-reduce(%a, %b), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}, to_apply=%add
  %next = f32[8,4]{1,0} conditional(%c, %x, %y), branch_computations={%small, %large}
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %x)
}

%small (p: f32[8,4]) -> f32[8,4] {
  ROOT %moved = f32[8,4]{1,0} collective-permute(%p), channel_id=2, source_target_pairs={{0,1},{1,2}}
}

%large (p: f32[8,4]) -> f32[8,4] {
  ROOT %moved = (f32[8,8]{1,0}, f32[8,8]{1,0}) all-to-all(%p, %p), channel_id=3, replica_groups={{0,4},{1,5},{2,6},{3,7}}
}

%outer_condition (p: (s32[], f32[8,4])) -> pred[] {
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  ROOT %loop = (s32[], f32[8,4]{1,0}) while(%t), condition=%outer_condition, body=%outer_body
}
"""  # noqa: E501


def test_loops_branches_and_one_that_is_written_twice():
  found = read_collectives(LOOPS, 8)
  assert found == [
    Collective('all-gather', 2 * 32, (0, 1, 2, 3), 5),
    Collective('reduce-scatter', 4 * 32, (0, 1, 2, 3), 5),
    Collective('all-reduce', 4 * 3 + 4, (0, 4)),
    Collective('all-to-all', 2 * 4 * 64, (0, 4)),
  ]
  sent = bytes_by_axes(found, MESH)
  # Three quarters of what is gathered and scattered, and twice the half of what is added up.
  assert sent == {'fsdp': 5 * 0.75 * (64 + 128), 'data': 2 * 0.5 * 16 + 0.5 * 512}


@pytest.mark.parametrize(
  'groups, group, axes',
  [
    ('{{0,4},{1,5}}', (0, 4), 'data'),
    ('[4,2]<=[2,4]T(1,0)', (0, 4), 'data'),
    ('[1,8]<=[8]', tuple(range(8)), 'data × fsdp'),
    ("mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3), 'fsdp'),
    ("mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8)), 'data × fsdp'),
    ("mesh['a'=2,'b'=4] {'b':(1)2}", (0, 2), 'fsdp'),
    ("mesh['a'=2,'b'=4] {'b':(2)2}", (0, 1), 'fsdp'),
    ('{}', tuple(range(8)), 'data × fsdp'),
  ],
)
def test_groups_in_every_form(groups, group, axes):
  attributes = f'channel_id=1, replica_groups={groups}, use_global_device_ids=true, to_apply=%add'
  line = f'  %r = f32[8]{{0}} all-reduce(%p), {attributes}'
  text = f'ENTRY %m (p: f32[8]) -> f32[8] {{\n{line}\n}}\n'
  (found,) = read_collectives(text, 8)
  assert found.group == group and axes_of(found, MESH) == axes


def test_only_a_part_goes_beyond_a_machine():
  """Two machines of 8: each first adds up its own, and each of its devices exchanges an eighth."""
  added = Collective('all-reduce', 1600, tuple(range(16)))
  assert added.sent_within_and_beyond(8) == (2 * 1600 * 7 / 8, 2 * 200 * 1 / 2)
  assert added.sent_within_and_beyond(16) == (2 * 1600 * 15 / 16, 0)
  across = Collective('all-gather', 1600, (0, 8, 16, 24), 3)
  assert across.sent_within_and_beyond(8) == (0, 3 * 1600 * 3 / 4)
  moved = Collective('collective-permute', 10, (7, 8))
  assert moved.sent_within_and_beyond(8) == (0, 10) and moved.sent_within_and_beyond(16) == (10, 0)


PROGRAM = """
import json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from engine.planning.collectives import bytes_by_axes, read_collectives
axes = ('lane', 'data', 'fsdp', 'tensor')
mesh = jax.make_mesh((1, 2, 4, 1), axes, axis_types=(AxisType.Auto,) * 4)
split, rows = NamedSharding(mesh, P(None, 'fsdp')), NamedSharding(mesh, P(('data', 'fsdp')))
def f(w, x):
  def layer(x, w):
    w = jax.lax.with_sharding_constraint(w, NamedSharding(mesh, P()))
    return jnp.tanh(x @ w), None
  return jax.lax.scan(layer, x, w)[0]
shapes = (
  jax.ShapeDtypeStruct((7, 64, 64), jnp.float32, sharding=NamedSharding(mesh, P(None, 'fsdp'))),
  jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=rows),
)
text = jax.jit(f, out_shardings=rows).lower(*shapes).compile().as_text()
print(json.dumps(bytes_by_axes(read_collectives(text, 8), dict(mesh.shape))))
"""


def test_weights_that_a_loop_gathers():
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    cwd=ROOT, env=environment(devices=8), capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  # Each of seven layers, three quarters of 64 × 64 numbers.
  assert json.loads(done.stdout) == {'fsdp': 7 * 0.75 * 4 * 64 * 64}
