"""Evaluation sees every example exactly once."""

import itertools

import numpy as np
import pytest

from data.eval_batches import batches_in_order

ARRAYS = {'image': np.arange(11 * 4, dtype=np.uint8).reshape(11, 2, 2, 1), 'label': np.arange(11)}


@pytest.mark.parametrize('batch_size', [1, 4, 8, 11, 16])
@pytest.mark.parametrize('processes', [1, 2, 4])
def test_every_example_once(batch_size, processes):
  ends = [batch_size * process // processes for process in range(processes + 1)]
  shares = [
    list(batches_in_order(ARRAYS, batch_size, range(*end))) for end in itertools.pairwise(ends)
  ]
  assert {len(share) for share in shares} == {-(-11 // batch_size)}
  batches = [
    {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for parts in zip(*shares)
  ]
  assert all(len(batch['mask']) == batch_size for batch in batches)
  whole = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
  np.testing.assert_array_equal(whole['mask'], np.arange(len(whole['mask'])) < 11)
  np.testing.assert_array_equal(whole['index'][whole['mask']], np.arange(11))
  np.testing.assert_array_equal(whole['image'], ARRAYS['image'][whole['index']])
  np.testing.assert_array_equal(whole['label'], whole['index'])


def test_types():
  (batch,) = batches_in_order(ARRAYS, 12, range(12))
  assert batch['mask'].dtype == bool and batch['index'].dtype == np.int32
  assert batch['image'].dtype == np.uint8


def test_a_source_gives_what_its_arrays_give(mnist5k):
  last = list(batches_in_order(mnist5k, 3000, range(1500, 3000)))[-1]
  assert last['mask'].sum() == 0 and len(last['image']) == 1500
  first = next(batches_in_order(mnist5k, 8, range(8)))
  np.testing.assert_array_equal(first['image'], mnist5k.read(range(8))['image'])
