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
