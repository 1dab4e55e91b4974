"""Both feeds hand out the same batches after any position."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

import errors
from data import feed, order
from data import stream as stream_module
from data.resident import Resident
from data.stream import Stream

BATCH, SEED = 48, 9


@pytest.fixture
def part(prepared_root):
  """100 examples: a batch of 48 crosses the end of an epoch every other time."""
  from data import source

  return source.open_source('mnist5k', 'train[:100]', str(prepared_root))


def batches(feed_, used, steps):
  """Takes and computes as the loop does, with no transfer that is not asked for."""
  step = jax.jit(feed_.batch)
  got = []
  with jax.transfer_guard('disallow'):
    while len(got) < steps:
      count, taken = feed_.take(used, steps - len(got))
      assert 1 <= count <= steps - len(got)
      got += [step(taken, jax.device_put(np.int32(i))) for i in range(count)]
      used += count * feed_.batch_size
  return jax.device_get(got)


def assert_batches(got, source, used, batch_size=BATCH, seed=SEED):
  for batch in got:
    epochs, index = order.indices(seed, used, batch_size, source.spec.n)
    wanted = {**source.read(index), 'index': index, 'epoch': epochs}
    assert batch.keys() == wanted.keys()
    for name, values in wanted.items():
      assert batch[name].dtype == values.dtype, name
      np.testing.assert_array_equal(batch[name], values)
    used += batch_size


def resident(source, mesh, batch_size=BATCH):
  return Resident(source.load(), source.spec, batch_size, SEED, mesh)


@pytest.mark.parametrize('used', [0, 60, 5 * 2**32 + 17])
def test_resident_follows_the_order(part, mesh, used):
  assert_batches(batches(resident(part, mesh), used, 5), part, used)


def test_resident_takes_all_steps_at_once(part, mesh):
  assert resident(part, mesh).take(0, 1000)[0] == 1000


def test_resident_never_counts_past_uint32(part, mesh):
  whole = resident(part, mesh, 2**20)
  assert whole.take(50, 10**6)[0] == (2**32 - 1 - 50) // 2**20


def test_resident_in_a_scan_is_the_same(part, mesh):
  whole = resident(part, mesh)
  count, taken = whole.take(60, 4)
  scan = jax.jit(
    lambda taken: jax.lax.scan(
      lambda carry, i: (carry, whole.batch(taken, i)), 0, np.arange(count)
    )[1]
  )
  got = jax.device_get(scan(taken))
  assert_batches([jax.tree.map(lambda x, i=i: x[i], got) for i in range(4)], part, 60)


def test_a_batch_may_be_larger_than_the_split(part, mesh):
  assert_batches(batches(resident(part, mesh, 250), 30, 2), part, 30, 250)


@pytest.fixture
def stream(part, mesh):
  made = Stream(part, BATCH, SEED, mesh, workers=0, used=0)
  yield made
  made.close()


def test_stream_follows_the_order_across_epochs(part, stream):
  assert_batches(batches(stream, 0, 6), part, 0)


def test_stream_jumps(part, stream):
  assert_batches(batches(stream, 0, 2), part, 0)
  for used in (7, 5 * 2**32 + 17, 0, 2 * BATCH):
    assert_batches(batches(stream, used, 2), part, used)


def test_stream_without_a_jump_does_not_start_anew(stream):
  batches(stream, 0, 1)
  iterator = stream._iterator
  batches(stream, BATCH, 2)
  assert stream._iterator is iterator
  batches(stream, BATCH, 1)
  assert stream._iterator is not iterator


def test_stream_hands_over_several_small_batches_at_once(part, stream):
  assert stream.stacked == 16
  count, taken = stream.take(0, 1000)
  assert count == 16 and taken['image'].shape == (16, BATCH, 28, 28, 1)
  count, taken = stream.take(16 * BATCH, 3)
  assert count == 3 and taken['image'].shape == (16, BATCH, 28, 28, 1)
  got = [jax.device_get(stream.batch(taken, np.int32(i))) for i in range(3)]
  assert_batches(got, part, 16 * BATCH)


def test_stream_hands_over_large_batches_one_by_one(part, mesh):
  made = Stream(part, 3000, SEED, mesh, workers=0, used=0)  # 2.2 MiB each
  assert made.stacked == 3
  made.close()
  made = Stream(part, 12_000, SEED, mesh, workers=0, used=0)
  assert made.stacked == 1
  assert_batches(batches(made, 5, 2), part, 5, 12_000)
  made.close()


def test_stream_reads_no_more_than_a_stack_ahead(part, mesh, monkeypatch):
  reads = []
  block = part.read(range(BATCH))
  monkeypatch.setattr(part, 'read', lambda index: reads.append(1) or block)
  ahead = Stream(part, BATCH, SEED, mesh, workers=0, used=0)
  batches(ahead, 0, 3)
  time.sleep(0.5)  # enough for hundreds of such reads
  ahead.close()
  assert 3 <= len(reads) <= 3 + ahead.stacked + 4


def test_close_leaves_nothing_running(part, mesh):
  before = set(threading.enumerate())
  made = Stream(part, BATCH, SEED, mesh, workers=0, used=0)
  batches(made, 0, 2)
  started = set(threading.enumerate()) - before
  made.close()
  made.close()
  deadline = time.monotonic() + 5
  # Not joined: a pool may have listed a thread that it had not yet started.
  while any(thread.is_alive() for thread in started) and time.monotonic() < deadline:
    time.sleep(0.01)
  assert started and not any(thread.is_alive() for thread in started)


def test_worker_processes_give_the_same(part, mesh):
  made = Stream(part, BATCH, SEED, mesh, workers=2, used=60)
  try:
    assert_batches(batches(made, 60, 5), part, 60)
  finally:
    made.close()


@pytest.mark.parametrize('restart', [True, False])
def test_a_worker_process_that_is_killed(part, mesh, restart, capfd):
  made = Stream(part, BATCH, SEED, mesh, workers=2, used=60, restart=restart)
  try:
    assert_batches(batches(made, 60, 2), part, 60)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    if restart:
      # More than were read ahead: some are read by the new processes.
      assert_batches(batches(made, 60 + 2 * BATCH, 40), part, 60 + 2 * BATCH)
      said = capfd.readouterr().err
      assert 'mnist5k train[:100] ended by the signal SIGKILL before the batch at' in said
      assert 'all are started anew (1 so far)' in said
      return
    with pytest.raises(errors.UserError, match=r'SIGKILL .*at position .* \(examples .*workers=2'):
      batches(made, 60 + 2 * BATCH, 40)
  finally:
    made.close()


def test_workers_that_always_die_are_given_up(part, mesh, monkeypatch, capfd):
  made = Stream(part, BATCH, SEED, mesh, workers=1, used=0, restart=True)

  class Dead:
    def __next__(self):
      raise RuntimeError('Worker process was terminated unexpectedly with exit code 3. Search')

    def close(self):
      pass

  monkeypatch.setattr(stream_module, '_read_ahead', lambda *rest: Dead())
  with pytest.raises(errors.UserError, match=r'ended with exit code 3 .*, 4 times in a row'):
    made.take(BATCH, 1)
  assert capfd.readouterr().err.count('started anew') == 3


@pytest.mark.parametrize('block', [7, 30])
def test_both_feeds_follow_the_order_in_blocks(part, mesh, block):
  wanted = [order.indices(SEED, 60 + k * BATCH, BATCH, 100, block=block)[1] for k in range(5)]
  for one in (
    Stream(part, BATCH, SEED, mesh, workers=0, used=60, block=block),
    Resident(part.load(), part.spec, BATCH, SEED, mesh, block=block),
    feed.open_feed(**options(part, mesh, block=block, resident_mb=0)),
    feed.open_feed(**options(part, mesh, block=block)),
  ):
    got = batches(one, 60, 5)
    one.close()
    for batch, index in zip(got, wanted):
      np.testing.assert_array_equal(batch['index'], index)
      np.testing.assert_array_equal(batch['image'], part.read(index)['image'])


def options(part, mesh, **changed):
  return {
    'source': part,
    'batch_size': BATCH,
    'seed': SEED,
    'resident_mb': 1,
    'workers': 0,
    'mesh': mesh,
    **changed,
  }


def test_what_fits_is_resident_and_the_rest_is_streamed(mesh, part):
  small = feed.open_feed(**options(part, mesh))
  large = feed.open_feed(**options(part, mesh, resident_mb=0))
  assert isinstance(small, Resident) and isinstance(large, Stream)
  for one in (small, large):
    assert one.spec == part.spec and one.batch_size == BATCH
    assert_batches(batches(one, 90, 2), part, 90)
    one.close()


def test_size_counts_every_feature(mnist5k):
  loaded = mnist5k.load()
  assert mnist5k.nbytes == sum(array.nbytes for array in loaded.values())


@pytest.mark.parametrize(
  ('changed', 'text'),
  [
    ({'batch_size': 0}, 'batch_size=0 does not split'),
    ({'seed': -1}, 'seed -1 is out of range'),
    ({'seed': 2**32}, 'out of range'),
    ({'workers': -1}, 'workers=-1 is negative'),
  ],
)
def test_mistakes_are_named(part, mesh, changed, text):
  with pytest.raises(errors.UserError, match=text):
    feed.open_feed(**options(part, mesh, **changed))


EIGHT = """
import sys
import jax, numpy as np, pytest
import errors
from data import order, placement, source
from data.resident import Resident
from data.stream import Stream

part = source.open_source('mnist5k', 'train[:100]', sys.argv[1])
axes = ('data', 'fsdp', 'tensor')
index = order.indices(9, 90, 48, 100)[1]
for shape in ((4, 2, 1), (2, 1, 4), (8, 1, 1)):
  mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), axes)
  ways = shape[0] * shape[1]
  for feed in (
    Resident(part.load(), part.spec, 48, 9, mesh), Stream(part, 48, 9, mesh, 0, 90)
  ):
    with jax.transfer_guard('disallow'):
      _, taken = feed.take(90, 1)
      first = placement.replicate(np.int32(0), mesh)
      program = jax.jit(feed.batch).lower(taken, first).compile()
      batch = program(taken, first)
    feed.close()
    assert 'all-gather' not in program.as_text() and 'all-reduce' not in program.as_text()
    assert {s.data.shape[0] for s in batch['image'].addressable_shards} == {48 // ways}
    assert (np.asarray(batch['index']) == index).all()
    assert (np.asarray(batch['image']) == part.read(index)['image']).all()
  if 100 % ways:
    with pytest.raises(errors.UserError, match=f'a multiple of {ways}'):
      Resident({}, part.spec, 100, 9, mesh)
print('same')
"""


def test_eight_devices_give_the_same_each_its_own_rows(prepared_root):
  flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
  run = subprocess.run(
    [sys.executable, '-c', EIGHT, str(prepared_root)],
    env={**os.environ, **flags},
    capture_output=True,
    text=True,
  )
  assert run.stdout.strip() == 'same', run.stderr[-3000:]


TWO = """
import sys
import jax
jax.distributed.initialize('127.0.0.1:' + sys.argv[2], 2, int(sys.argv[3]))
import numpy as np
from data import order, placement, source
from data.resident import Resident
from data.stream import Stream

part = source.open_source('mnist5k', 'train[:100]', sys.argv[1])
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 1, 1), ('data', 'fsdp', 'tensor'))
rows = placement.local_rows(mesh, 48)
assert rows == range(24 * int(sys.argv[3]), 24 * int(sys.argv[3]) + 24), rows
index = order.indices(9, 90, 48, 100)[1]
wanted = {**part.read(index), 'index': index}
for feed in (
  Resident(part.load(), part.spec, 48, 9, mesh), Stream(part, 48, 9, mesh, 0, 90)
):
  with jax.transfer_guard('disallow'):
    batch = jax.jit(feed.batch)(feed.take(90, 1)[1], placement.replicate(np.int32(0), mesh))
  feed.close()
  for name, values in wanted.items():
    for shard in batch[name].addressable_shards:
      assert (np.asarray(shard.data) == values[shard.index]).all(), name
print('same')
"""


def test_two_processes_give_the_same_each_reading_its_own_rows(prepared_root):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = str(free.getsockname()[1])
  flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=2', 'JAX_PLATFORMS': 'cpu'}
  running = [
    subprocess.Popen(
      [sys.executable, '-c', TWO, str(prepared_root), port, process],
      env={**os.environ, **flags},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in '01'
  ]
  outputs = [process.communicate(timeout=120) for process in running]
  assert [out.strip() for out, _ in outputs] == ['same', 'same'], outputs[0][1][-3000:]
