"""The order of examples: permutations, the same on host and device, uniform, free of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import order

SIZES = [*range(1, 70), 97, 128, 997, 1000, 4000, 5003, 60_000]


def permutation(seed, epoch, n):
  return order.example_at(seed, np.uint32(epoch), np.arange(n, dtype=np.uint32), n)


@pytest.mark.parametrize('seed', [0, 1, 12345, 2**32 - 1])
def test_every_epoch_is_a_permutation(seed):
  for n in SIZES:
    for epoch in (0, 1, 2**32 - 1):
      np.testing.assert_array_equal(np.sort(permutation(seed, epoch, n)), np.arange(n))


@pytest.mark.parametrize('n', [1, 2, 5, 97, 4000, 60_000, 2**31 - 1])
def test_jit_gives_the_numbers_of_numpy(n):
  offsets = np.unique(np.linspace(0, n - 1, 1000).astype(np.uint32))
  host = order.example_at(7, np.uint32(9), offsets, n)
  device = jax.jit(order.example_at, static_argnums=3)(
    jnp.uint32(7), jnp.uint32(9), jnp.asarray(offsets), n
  )
  assert host.dtype == device.dtype == np.int32
  assert host.min() >= 0 and host.max() < n
  np.testing.assert_array_equal(host, device)


def test_seeds_and_epochs_differ():
  orders = {tuple(permutation(s, e, 100)) for s in range(20) for e in range(20)}
  assert len(orders) == 400


def chi2_per_degree(counts):
  expected = counts.sum() / counts.size
  rows, columns = counts.shape
  return ((counts - expected) ** 2 / expected).sum() / ((rows - 1) * (columns - 1))


@pytest.mark.parametrize('n', [10, 16, 37, 100])
@pytest.mark.parametrize('varied', ['seed', 'epoch'])
def test_every_example_is_as_likely_at_every_place(n, varied):
  trials = np.arange(300 * n, dtype=np.uint32)[:, None]
  fixed = np.full_like(trials, 5)
  seed, epoch = (trials, fixed) if varied == 'seed' else (fixed, trials)
  shown = order.example_at(seed, epoch, np.arange(n, dtype=np.uint32)[None], n)
  counts = np.zeros((n, n))
  np.add.at(counts, (np.broadcast_to(np.arange(n), shown.shape), shown), 1)
  sigma = np.sqrt(2) / (n - 1)
  assert abs(chi2_per_degree(counts) - 1) < 5 * sigma


@pytest.mark.parametrize('n', [16, 37, 100])
def test_examples_are_as_likely_at_any_distance(n):
  """Pairs too: a weak network keeps offsets of one column in one column."""
  seeds = np.arange(200 * n, dtype=np.uint32)[:, None]
  offsets = np.arange(n, dtype=np.uint32)[None]
  shown = order.example_at(seeds, np.zeros_like(seeds), offsets, n)
  for gap in range(1, n):
    distance = (shown[:, gap:] - shown[:, :-gap]) % n
    counts = np.bincount(distance.ravel(), minlength=n)[1:]
    expected = counts.sum() / (n - 1)
    assert ((counts - expected) ** 2 / expected).sum() / (n - 2) < 4


def test_neighbouring_epochs_have_nothing_in_common():
  first, second = permutation(3, 0, 10_000), permutation(3, 1, 10_000)
  assert (first == second).sum() < 10  # one is expected
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def sequence(seed, batches, n):
  used, parts = 0, []
  for batch in batches:
    parts.append(order.indices(seed, used, batch, n))
    used += batch
  return [np.concatenate(column) for column in zip(*parts)]


def test_the_sequence_does_not_depend_on_the_batch_size():
  n = 37
  one_by_one = sequence(4, [1] * 120, n)
  for batches in ([120], [40] * 3, [7] * 10 + [50], [100, 20]):
    for got, wanted in zip(sequence(4, batches, n), one_by_one):
      np.testing.assert_array_equal(got, wanted)
  epochs, index = one_by_one
  np.testing.assert_array_equal(epochs, np.arange(120) // n)
  for epoch in range(3):
    np.testing.assert_array_equal(np.sort(index[epochs == epoch]), np.arange(n))


@pytest.mark.parametrize('processes', [2, 4, 8])
@pytest.mark.parametrize('used', [0, 30, 2**40 + 5])
def test_shares_make_up_the_batch(processes, used):
  n, batch = 37, 48
  whole = order.indices(11, used, batch, n)
  shares = [order.indices(11, used, batch, n, p, processes) for p in range(processes)]
  for got, wanted in zip(zip(*shares), whole):
    assert {len(part) for part in got} == {batch // processes}
    np.testing.assert_array_equal(np.concatenate(got), wanted)


def test_batch_offsets_cross_epochs():
  epochs, offsets = jax.jit(order.batch_offsets, static_argnums=(2, 3))(
    jnp.uint32(5), jnp.uint32(3), 9, 4
  )
  assert epochs.dtype == offsets.dtype == np.uint32
  np.testing.assert_array_equal(epochs, [5, 6, 6, 6, 6, 7, 7, 7, 7])
  np.testing.assert_array_equal(offsets, [3, 0, 1, 2, 3, 0, 1, 2, 3])


def test_position_takes_any_integer():
  assert order.position(2**40 + 7, 10) == ((2**40 + 7) // 10, (2**40 + 7) % 10)


@pytest.mark.parametrize('seed', [0, 12345, 2**32 - 1])
@pytest.mark.parametrize('block', [1, 2, 7, 64, 996])
def test_every_epoch_in_blocks_is_a_permutation_of_whole_blocks(seed, block):
  for n in (1, 2, 37, 64, 997, 1000):
    for epoch in (0, 1, 2**32 - 1):
      shown = order.example_at(seed, np.uint32(epoch), np.arange(n, dtype=np.uint32), n, block)
      np.testing.assert_array_equal(np.sort(shown), np.arange(n))
      # One block after another: as many changes between blocks as there are blocks, but one.
      if block < n:
        assert (np.diff(shown // block) != 0).sum() == -(-n // block) - 1


@pytest.mark.parametrize('n, block', [(100, 7), (4000, 256), (60_000, 999), (2**31 - 1, 10**6)])
def test_jit_gives_the_numbers_of_numpy_in_blocks(n, block):
  offsets = np.unique(np.linspace(0, n - 1, 5000).astype(np.uint32))
  host = order.example_at(7, np.uint32(9), offsets, n, block)
  device = jax.jit(order.example_at, static_argnums=(3, 4))(
    jnp.uint32(7), jnp.uint32(9), jnp.asarray(offsets), n, block
  )
  np.testing.assert_array_equal(host, device)


def test_blocks_and_the_examples_of_a_block_come_at_any_place():
  """Each example at each place as often; the short block too."""
  n, trials = 12, 30_000
  seeds = np.arange(trials, dtype=np.uint32)[:, None]
  shown = order.example_at(seeds, np.zeros_like(seeds), np.arange(n, dtype=np.uint32)[None], n, 3)
  counts = np.zeros((n, n))
  np.add.at(counts, (np.broadcast_to(np.arange(n), shown.shape), shown), 1)
  expected = trials / n
  assert abs(counts / expected - 1).max() < 5 * np.sqrt(1 / expected)
  # Of 14 examples two are a short block, as often first as last.
  shown = order.example_at(seeds, np.zeros_like(seeds), np.arange(14, dtype=np.uint32)[None], 14, 3)
  place = (shown >= 12).argmax(1)
  found, times = np.unique(place, return_counts=True)
  assert found.tolist() == [0, 3, 6, 9, 12]
  assert abs(times / (trials / 5) - 1).max() < 0.1
  # Blocks are shuffled each in an order of its own.
  inner = shown[(shown[:, 0] < 3) & (shown[:, 3] >= 3) & (shown[:, 3] < 6)]
  same = (np.argsort(inner[:, :3], 1) == np.argsort(inner[:, 3:6], 1)).all(1).mean()
  assert abs(same - 1 / 6) < 0.05


@pytest.mark.parametrize('block', [5, 37, 100])
def test_the_sequence_in_blocks_does_not_depend_on_batches_and_processes(block):
  n = 37
  whole = order.indices(4, 30, 48, n, block=block)
  for got, wanted in zip(
    zip(*(order.indices(4, 30 + at, 12, n, block=block) for at in (0, 12, 24, 36))), whole
  ):
    np.testing.assert_array_equal(np.concatenate(got), wanted)
  for processes in (2, 4):
    shares = [order.indices(4, 30, 48, n, p, processes, block) for p in range(processes)]
    np.testing.assert_array_equal(np.concatenate([share[1] for share in shares]), whole[1])


def test_the_order_is_what_it_always_was():
  """A change here changes every run that is resumed: do not update these numbers lightly."""
  assert order.indices(0, 0, 8, 4000)[1].tolist() == [411, 2852, 772, 2442, 1657, 3834, 2831, 3486]
  assert order.indices(2**32 - 1, 2**33 + 5, 6, 5003)[1].tolist() == [
    493,
    3148,
    3553,
    4393,
    1158,
    2878,
  ]


def test_the_order_in_blocks_is_what_it_always_was():
  """As above."""
  assert order.indices(0, 0, 8, 4000, block=100)[1].tolist() == [
    2270,
    2277,
    2283,
    2214,
    2226,
    2257,
    2243,
    2233,
  ]
  assert order.indices(2**32 - 1, 2**33 + 5, 6, 5003, block=100)[1].tolist() == [
    1068,
    1036,
    1048,
    1079,
    1053,
    1005,
  ]
