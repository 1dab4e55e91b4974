"""What every kind of examples can do follows from `read`, and what is overridden agrees with it."""

import jax
import numpy as np
import pytest

from data import examples, feed, source
from data.examples import Examples
from data.resident import Resident
from data.selection import ClassSubset, Fold, Joined
from data.spec import Spec
from data.text import options

N = 1030  # more than are read at a time


class Squares(Examples):
  """The least that a kind of examples needs."""

  def __init__(self):
    features = {'inputs': ((2,), 'float32'), 'label': ((), 'int32')}
    self.spec = Spec('squares', 'train', N, features, 3, 'squares', ('a', 'b', 'c'))
    self.stamp = '1'

  def read(self, indices):
    numbers = np.asarray(indices)
    inputs = np.stack([numbers, numbers**2], axis=-1).astype(np.float32)
    return {'inputs': inputs, 'label': (numbers % 3).astype(np.int32)}


def text_rows(names, rows):
  text = options.Text('byte', 0, (), rows, 16, True, 0, False)
  return options.open_text(names(), text, '', True)


KINDS = {
  'read alone': lambda root, names: Squares(),
  'classes': lambda root, names: ClassSubset(Squares(), (2, 0)),
  'fold': lambda root, names: Fold(Squares(), 1, 3, held_out=True),
  'joined': lambda root, names: Joined([Squares(), Squares()]),
  'source': lambda root, names: source.open_source('mnist5k', 'train[:60]', str(root)),
  'windows': lambda root, names: text_rows(names, 'windows'),
  'documents': lambda root, names: text_rows(names, 'documents'),
}


@pytest.mark.parametrize('kind', KINDS)
def test_all_members_agree_with_read(kind, prepared_root, names):
  made = KINDS[kind](prepared_root, names)
  whole = made.read(range(len(made)))
  assert isinstance(made, Examples) and len(made) == made.spec.n
  assert whole.keys() == made.spec.features.keys()
  for name, values in whole.items():
    np.testing.assert_array_equal(made.column(name), values)
  arrays = made.load()
  assert made.nbytes == sum(array.nbytes for array in arrays.values())
  index = np.array([3, len(made) - 1, 3], np.int32)
  rows = jax.jit(made.rows)(arrays, index)
  assert rows.keys() == whole.keys()
  for name, values in whole.items():
    assert rows[name].dtype == values.dtype
    np.testing.assert_array_equal(rows[name], values[index])


def test_examples_of_a_new_kind_are_trained_on_where_they_fit(mesh):
  given = {'source': Squares(), 'batch_size': 4, 'seed': 0, 'workers': 0, 'mesh': mesh}
  resident = feed.open_feed(resident_mb=1, **given)
  assert isinstance(resident, Resident)
  _, taken = resident.take(0, 1)
  batch = jax.jit(resident.batch)(taken, 0)
  np.testing.assert_array_equal(batch['inputs'][:, 0], batch['index'])


def test_examples_without_read_cannot_be_made():
  with pytest.raises(TypeError, match='read'):
    type('Nothing', (Examples,), {})()


@pytest.mark.parametrize(('n', 'size', 'sizes'), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (1, 9, [1])])
def test_blocks_cover_everything_once(n, size, sizes):
  cut = list(examples.blocks(n, size))
  assert [len(block) for block in cut] == sizes
  assert [i for block in cut for i in block] == [*range(n)]
