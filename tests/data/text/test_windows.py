"""Windows: every token comes up as often as it should, however the windows are read."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import errors
from data import feed, order
from data.resident import Resident
from data.spec import Spec
from data.stream import Stream
from data.text.encoded import EncodedText
from data.text.windows import Windows

SPEC = Spec('some', 'train', 3, {'text': ((), 'string')}, 7, 'abc', ('kind',) * 7, '{}')
PAD = 250


def windows(
  size, row=5, stride=4, drop_remainder=False, next_token=True, kinds=False, dtype=np.uint8
):
  tokens = (np.arange(size) * 7 % 199).astype(dtype)
  held = {'tokens': tokens, 'ends': np.array([size])}
  if kinds:
    held['kind'] = (np.arange(size) % 7).astype(np.int8)
  encoded = EncodedText(None, held)
  options = {'row': row, 'stride': stride}
  options |= {'drop_remainder': drop_remainder, 'next_token': next_token}
  return Windows(encoded, SPEC, **options, pad=PAD, stamp='1'), tokens


@pytest.mark.parametrize('size', [2, 4, 5, 6, 8, 9, 10, 37])
def test_every_token_but_the_first_is_a_target_once(size):
  made, tokens = windows(size)
  got = made.read(range(len(made)))
  assert got['tokens'].shape == (len(made), 5) and got['tokens'].dtype == np.int32
  assert got['length'].dtype == np.int32 and got['length'].min() >= 2
  real = np.arange(5) < got['length'][:, None]
  np.testing.assert_array_equal(got['tokens'][:, 1:][real[:, 1:]], tokens[1:])
  np.testing.assert_array_equal(got['tokens'][:, :-1][real[:, 1:]], tokens[:-1])
  assert (got['tokens'][~real] == PAD).all()


@pytest.mark.parametrize('size', [1, 4, 5, 8, 11])
def test_without_targets_every_token_comes_up_once(size):
  made, tokens = windows(size, row=4, stride=4, next_token=False)
  got = made.read(range(len(made)))
  real = np.arange(4) < got['length'][:, None]
  np.testing.assert_array_equal(got['tokens'][real], tokens)


@pytest.mark.parametrize(('stride', 'n'), [(1, 33), (4, 9), (5, 7), (33, 1)])
def test_windows_to_train_on_are_full(stride, n):
  made, tokens = windows(37, stride=stride, drop_remainder=True)
  got = made.read(range(len(made)))
  assert len(made) == made.spec.n == n and (got['length'] == 5).all()
  for i, row in enumerate(got['tokens']):
    np.testing.assert_array_equal(row, tokens[i * stride : i * stride + 5])
  assert 37 - ((n - 1) * stride + 5) < stride  # one more would not fit


def test_kinds_go_with_their_tokens():
  made, _ = windows(11, kinds=True)
  got = made.read([0, 2])
  assert made.spec.features['kind'] == ((5,), 'int32') and got['kind'].dtype == np.int32
  np.testing.assert_array_equal(got['kind'], [[0, 1, 2, 3, 4], [1, 2, 3, -1, -1]])
  assert (made.spec.num_classes, len(made.spec.class_names)) == (7, 7)
  plain = windows(11)[0].spec
  assert (plain.num_classes, plain.class_names) == (0, ()) and 'kind' not in plain.features


@pytest.mark.parametrize('kinds', [False, True])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32])
def test_what_is_cut_on_a_device_is_what_is_read(kinds, dtype):
  made, _ = windows(38, stride=3, kinds=kinds, dtype=dtype)
  index = np.array([0, 3, 12, 11, 3], np.int32)  # 12 is short
  wanted = made.read(index)
  assert wanted['length'][2] == 2
  held = made.load()
  assert held['tokens'].dtype == dtype  # not wider on the devices than it needs to be
  assert made.nbytes == sum(array.nbytes for array in held.values())
  for got in (made.rows(held, index), jax.jit(made.rows)(held, index)):
    assert got.keys() == wanted.keys()
    for name, values in wanted.items():
      assert got[name].dtype == np.int32, name
      np.testing.assert_array_equal(got[name], values)


def test_streamed_and_resident_are_the_same_and_follow_the_order(mesh):
  made, _ = windows(101, stride=1, drop_remainder=True, kinds=True)
  feeds = [
    feed.open_feed(source=made, batch_size=40, seed=3, resident_mb=mb, workers=0, mesh=mesh)
    for mb in (1, 0)
  ]
  assert [type(one) for one in feeds] == [Resident, Stream]
  used = 90  # crosses the end of an epoch
  epochs, index = order.indices(3, used, 40, len(made))
  wanted = {**made.read(index), 'index': index, 'epoch': epochs}
  for one in feeds:
    _, taken = one.take(used, 1)
    got = jax.device_get(jax.jit(one.batch)(taken, 0))
    one.close()
    assert got.keys() == wanted.keys()
    for name, values in wanted.items():
      assert got[name].dtype == values.dtype
      np.testing.assert_array_equal(got[name], values)


def test_identity_tells_windows_apart():
  made = [
    windows(38),
    windows(38, row=6),
    windows(38, stride=3),
    windows(38, drop_remainder=True),
    windows(38, kinds=True),
  ]
  assert len({one.spec.identity for one, _ in made}) == len(made)
  assert windows(38)[0].spec == made[0][0].spec


@pytest.mark.parametrize(
  ('options', 'text'),
  [
    (
      {'size': 4, 'drop_remainder': True},
      'some train has 4 tokens, fewer than the 5 of one window',
    ),
    ({'size': 1}, 'has 1 tokens, fewer than the 2'),
  ],
)
def test_too_short(options, text):
  with pytest.raises(errors.UserError, match=text):
    windows(**options)


def test_more_windows_than_can_be_counted(monkeypatch):
  monkeypatch.setattr(order, 'MOST_EXAMPLES', 32)
  with pytest.raises(errors.UserError, match=r'33 windows with .*stride=1.*choose a larger stride'):
    windows(37, stride=1, drop_remainder=True)


EIGHT = """
import jax, numpy as np
from data import order, placement
from data.text.encoded import EncodedText
from data.resident import Resident
from data.spec import Spec
from data.text.windows import Windows

held = {'tokens': np.arange(500, dtype=np.uint16), 'ends': np.array([500])}
spec = Spec('some', 'train', 1, {}, 0, 'abc', (), '{}')
made = Windows(
  EncodedText(None, held), spec,
  row=5, stride=1, drop_remainder=True, next_token=True, pad=0, stamp='1',
)
index = order.indices(9, 470, 48, len(made))[1]
for shape in ((4, 2, 1), (2, 1, 4)):
  mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), ('data', 'fsdp', 'tensor'))
  feed = Resident(made.load(), made.spec, 48, 9, mesh, made.rows)
  with jax.transfer_guard('disallow'):
    _, taken = feed.take(470, 1)
    first = placement.replicate(np.int32(0), mesh)
    program = jax.jit(feed.batch).lower(taken, first).compile()
    batch = program(taken, first)
  assert 'all-gather' not in program.as_text() and 'all-reduce' not in program.as_text()
  assert {s.data.shape[0] for s in batch['tokens'].addressable_shards} == {
    48 // (shape[0] * shape[1])
  }
  assert (np.asarray(batch['tokens']) == made.read(index)['tokens']).all()
print('same')
"""


def test_eight_devices_cut_their_own_rows():
  flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-c', EIGHT]
  run = subprocess.run(command, env={**os.environ, **flags}, capture_output=True, text=True)
  assert run.stdout.strip() == 'same', run.stderr[-3000:]
