"""Token tagging by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from metrics.classification import Report
from objectives.tag import Tag
from tests.objectives.models_of_text import Table, evaluation, training, transformer, variables

KEY = jax.random.key(0)
KINDS = 3
DATA = {
  'tokens': jnp.array([[1, 2, 3, 4], [5, 6, 0, 0]], jnp.int32),
  # The last one lies in the padding, and says so by the length alone.
  'kind': jnp.array([[0, 1, -1, 2], [1, 1, -1, 2]], jnp.int32),
  'length': jnp.array([4, 2], jnp.int32),
  'position': jnp.arange(2),
}
REAL = [[(1, 0), (2, 1), (4, 2)], [(5, 1), (6, 1)]]


def build(module=None, classes=KINDS):
  return Tag(modules={'model': module or Table()}, num_classes=classes)


def test_by_hand():
  objective = build()
  given = variables(objective, DATA)
  table = np.asarray(given['model']['params']['table'], np.float64)
  assert table.shape[1] == KINDS
  nats = np.log(np.exp(table).sum(-1, keepdims=True)) - table
  said = evaluation(objective)(given, DATA, KEY)
  losses = [[nats[pair] for pair in row] for row in REAL]
  np.testing.assert_allclose(said['loss'], [np.mean(row) for row in losses], rtol=1e-5)
  hits = [np.mean([table[token].argmax() == kind for token, kind in row]) for row in REAL]
  np.testing.assert_allclose(said['accuracy'], hits)
  np.testing.assert_array_equal(said['weight'], [3, 2])
  np.testing.assert_array_equal(said['prediction'], table.argmax(-1)[np.asarray(DATA['tokens'])])
  np.testing.assert_array_equal(said['label'], [[0, 1, -1, 2], [1, 1, -1, -1]])
  assert said['prediction'].dtype == said['label'].dtype == jnp.int32
  loss, _ = training(objective)(given, DATA, KEY)
  np.testing.assert_allclose(loss, np.mean(losses[0] + losses[1]), rtol=1e-5)


def test_what_it_says_makes_a_report():
  objective = build()
  given = variables(objective, DATA)
  said = {name: np.asarray(x) for name, x in evaluation(objective)(given, DATA, KEY).items()}
  names = ['name', 'number', 'operator']
  figures = Report().summarise(said, names, True).figures
  assert [figures[f'support/{name}'].value for name in names] == [1, 3, 1]


def test_padding_changes_nothing():
  objective = build(transformer(causal=False))
  given = variables(objective, DATA)
  other = {**DATA, 'tokens': DATA['tokens'].at[1, 2:].set(9)}
  evaluate = evaluation(objective)
  said, again = evaluate(given, DATA, KEY), evaluate(given, other, KEY)
  np.testing.assert_allclose(again['loss'], said['loss'], rtol=1e-5)


def test_what_cannot_be():
  with pytest.raises(UserError, match='needs data that says the kind of each token'):
    build(classes=0)
  data = {name: column for name, column in DATA.items() if name != 'kind'}
  with pytest.raises(UserError, match=r'no "kind" of each token.*text.kinds=True'):
    build().init(KEY, data)
