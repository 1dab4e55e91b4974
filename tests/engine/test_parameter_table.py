"""The table of parameters: alike layers in one row, long modules less deep, nothing left out."""

import jax
import jax.numpy as jnp

from engine import parameter_table as table


def block(width):
  return {
    'attention': {'output': {'kernel': jnp.ones((width, width))}},
    'norm': {'scale': jnp.ones(width)},
  }


def fields(lines):
  return [line.split('  ') for line in lines]


def test_layers_that_look_the_same_share_a_row():
  tree = {f'block_{i}': block(4) for i in range(11)} | {'head': {'kernel': jnp.ones((4, 2))}}
  lines = table.parameter_table({'model': tree})
  assert [line.split() for line in lines] == [
    ['model', '228'],
    ['block_*/attention/output', *'11 × (kernel 4 × 4)'.split(), '176'],
    ['block_*/norm', *'11 × (scale 4)'.split(), '44'],
    ['head', *'kernel 4 × 2'.split(), '8'],
  ]
  assert len({len(line) for line in lines}) == 1


def test_layers_of_other_shapes_do_not():
  tree = {'block_9': block(4), 'block_10': block(6), 'step': {'size': jnp.ones(())}}
  names = [line.split()[0] for line in table.parameter_table({'model': tree})]
  assert names == [
    'model', 'block_9/attention/output', 'block_9/norm', 'block_10/attention/output',
    'block_10/norm', 'step',
  ]  # fmt: skip
  assert 'size scalar' in table.parameter_table({'model': tree})[-1]


def test_a_long_module_is_shown_less_deep_and_counts_all():
  tree = {f'block_{i}': block(i + 1) for i in range(table.MOST_ROWS)}
  lines = table.parameter_table({'model': tree, 'other': {'kernel': jnp.ones((2, 3))}})
  rows = [line.split() for line in lines]
  assert len(rows) == table.MOST_ROWS + 3
  assert rows[3] == ['block_2', '2', 'layers', str(9 + 3)]
  total = sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert rows[0] == ['model', f'{total:,}']
  inside = [int(row[-1].replace(',', '')) for row in rows[1 : table.MOST_ROWS + 1]]
  assert sum(inside) == total
