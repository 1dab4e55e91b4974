"""Masked language modelling: which tokens are hidden, how, and what is made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from objectives.masked_lm import MaskedLM
from tests.objectives.calls import keys_of
from tests.objectives.models_of_text import (
  Table,
  V,
  evaluation,
  training,
  transformer,
  variables,
)

KEY = jax.random.key(0)
# In the middle, as in BERT's own vocabulary.
SPECIALS = {'pad': 0, 'mask': 4, 'class': 5}
ORDINARY = [1, 2, 3, 6, 7, 8, 9, 10]


def build(module=None, **options):
  given = dict(
    vocabulary=V,
    specials=SPECIALS,
    mask_rate=0.15,
    mask_token_fraction=0.8,
    random_token_fraction=0.1,
  )
  module = module or transformer(causal=False)
  return MaskedLM(modules={'model': module}, **{**given, **options})


def batch(tokens, lengths=None):
  tokens = jnp.asarray(tokens, jnp.int32)
  lengths = [tokens.shape[1]] * len(tokens) if lengths is None else lengths
  return {
    'tokens': tokens,
    'length': jnp.asarray(lengths, jnp.int32),
    'position': jnp.arange(len(tokens)),
  }


def many(rows=64, size=512):
  return batch(np.random.default_rng(0).choice(ORDINARY, (rows, size)))


def rows_of(objective, data, key=KEY):
  return jax.jit(objective.rows)(data, keys_of(data, key))


@pytest.fixture(scope='module')
def drawn():
  """Of 32,768 tokens: what they were, and what becomes of them."""
  data = many()
  rows = rows_of(build(), data)
  return np.asarray(data['tokens']), np.asarray(rows.inputs), np.asarray(rows.targets)


def test_fifteen_percent_are_chosen_and_only_they_are_touched(drawn):
  tokens, inputs, targets = drawn
  chosen = targets >= 0
  # Four standard errors.
  np.testing.assert_allclose(chosen.mean(), 0.15, atol=4 * np.sqrt(0.15 * 0.85 / chosen.size))
  np.testing.assert_array_equal(targets[chosen], tokens[chosen])
  np.testing.assert_array_equal(inputs[~chosen], tokens[~chosen])
  assert set(targets[~chosen]) == {-1}
  # Each for itself: no row and no place has many of them.
  assert np.unique(chosen, axis=0).shape[0] == len(chosen)
  assert chosen.mean(axis=0).max() < 0.5 and chosen.mean(axis=1).max() < 0.25


def test_eighty_ten_ten(drawn):
  tokens, inputs, targets = drawn
  chosen = targets >= 0
  seen, was = inputs[chosen], tokens[chosen]
  hidden = seen == SPECIALS['mask']
  # A random token is one time in eight the same.
  changed = ~hidden & (seen != was)
  for got, wanted in ((hidden, 0.8), (changed, 0.1 * 7 / 8), (seen == was, 0.1 + 0.1 / 8)):
    np.testing.assert_allclose(got.mean(), wanted, atol=4 * np.sqrt(wanted / chosen.sum()))
  # Random tokens are all of the ordinary ones alike, whatever stood there.
  counts = np.bincount(seen[changed], minlength=V)
  assert set(np.flatnonzero(counts)) == set(ORDINARY)
  assert counts[ORDINARY].min() > 0.5 * counts[ORDINARY].mean()


def test_padding_and_roles_are_never_chosen():
  objective = build(mask_rate=1.0, mask_token_fraction=1.0, random_token_fraction=0.0)
  rows = rows_of(objective, batch([[5, 1, 2, 3, 4, 0], [5, 7, 8, 9, 9, 9]], [5, 3]))
  np.testing.assert_array_equal(rows.targets, [[-1, 1, 2, 3, -1, -1], [-1, 7, 8, -1, -1, -1]])
  np.testing.assert_array_equal(rows.inputs, [[5, 4, 4, 4, 4, 0], [5, 4, 4, 9, 9, 9]])
  np.testing.assert_array_equal(rows.lengths, [5, 3])


def test_all_random_or_all_kept():
  data = many(4, 64)
  random = rows_of(build(mask_rate=1.0, mask_token_fraction=0.0, random_token_fraction=1.0), data)
  assert set(np.unique(random.inputs)) == set(ORDINARY)
  assert (np.asarray(random.inputs) != np.asarray(data['tokens'])).mean() > 0.7
  kept = rows_of(build(mask_rate=1.0, mask_token_fraction=0.0, random_token_fraction=0.0), data)
  np.testing.assert_array_equal(kept.inputs, data['tokens'])
  np.testing.assert_array_equal(kept.targets, data['tokens'])


def test_the_draw_does_not_depend_on_how_the_batch_is_cut(drawn):
  _, inputs, targets = drawn
  data = many()
  cut = {name: column[1::2] for name, column in data.items()}
  rows = rows_of(build(), cut)
  np.testing.assert_array_equal(rows.inputs, inputs[1::2])
  np.testing.assert_array_equal(rows.targets, targets[1::2])
  other = rows_of(build(), cut, jax.random.key(1))
  assert (np.asarray(other.targets) != targets[1::2]).any()


def test_figures_by_hand():
  objective = build(Table(causal=False), mask_rate=0.5)
  data = batch(np.random.default_rng(1).choice(ORDINARY, (3, 9)), [9, 9, 4])
  given = variables(objective, data)
  said = evaluation(objective)(given, data, KEY)
  rows = rows_of(objective, data)
  table = np.asarray(given['model']['params']['table'], np.float64)
  nats = np.log(np.exp(table).sum(-1, keepdims=True)) - table
  for i, (seen, was) in enumerate(zip(np.asarray(rows.inputs), np.asarray(rows.targets))):
    pairs = [(a, b) for a, b in zip(seen, was) if b >= 0]
    assert len(pairs) < 9
    assert said['weight'][i] == len(pairs)
    if not pairs:
      continue
    losses = [nats[pair] for pair in pairs]
    np.testing.assert_allclose(said['loss'][i], np.mean(losses), rtol=1e-5)
    hits = np.mean([table[a].argmax() == b for a, b in pairs])
    np.testing.assert_allclose(said['accuracy'][i], hits)
  assert sum(map(float, said['weight'])) > 5
  # Training draws from a key of its own; with all of the tokens chosen and kept that is no matter.
  sure = build(
    Table(causal=False), mask_rate=1.0, mask_token_fraction=0.0, random_token_fraction=0.0
  )
  loss, _ = training(sure)(given, data, KEY)
  kept = [nats[t, t] for t, real in zip(*map(np.ravel, (data['tokens'], mask_of(data)))) if real]
  np.testing.assert_allclose(loss, np.mean(kept), rtol=1e-5)
  assert sure.derive({'loss': np.log(5), 'accuracy': 0.1}) == pytest.approx(
    {'loss': np.log(5), 'accuracy': 0.1, 'perplexity': 5}
  )


def mask_of(data):
  return np.arange(data['tokens'].shape[1]) < np.asarray(data['length'])[:, None]


def test_training_draws_anew_at_every_key():
  objective, data = build(Table(causal=False)), many(8, 32)
  given = variables(objective, data)
  loss = training(objective)
  losses = [float(loss(given, data, jax.random.key(i))[0]) for i in (0, 1, 0)]
  assert losses[0] == losses[2] != losses[1]


def test_nothing_chosen_is_no_nan():
  objective = build(Table(causal=False))
  data = batch([[5, 5, 5], [1, 2, 3]], [3, 0])
  given = variables(objective, data)
  for column in evaluation(objective)(given, data, KEY).values():
    np.testing.assert_array_equal(column, [0, 0])
  loss = training(objective)
  value, slopes = jax.value_and_grad(lambda v: loss(v, data, KEY)[0])(given)
  assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(slopes))


def test_padding_changes_nothing():
  objective = build(mask_rate=0.5)
  tokens = np.random.default_rng(2).choice(ORDINARY, (2, 8))
  padded = tokens.copy()
  padded[1, 5:] = [9, 0, 5]
  given = variables(objective, batch(tokens))
  evaluate = evaluation(objective)
  said = evaluate(given, batch(tokens, [8, 5]), KEY)
  again = evaluate(given, batch(padded, [8, 5]), KEY)
  for name, column in said.items():
    np.testing.assert_allclose(again[name], column, rtol=1e-5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(vocabulary=0), 'name=masked_lm reads text'),
    (dict(specials={'pad': 0}), 'add "mask" to config.data.text.specials'),
    (dict(mask_token_fraction=0.8, random_token_fraction=0.3), 'at most 1 together'),
    (dict(module=transformer(causal=True)), 'causal=True hides what is right'),
  ],
)
def test_what_cannot_be(options, message):
  with pytest.raises(UserError, match=message):
    build(**options)


def test_shares_that_come_to_one_but_for_rounding():
  assert 0.7 + 0.2 + 0.1 != 1
  build(mask_token_fraction=0.7 + 0.2, random_token_fraction=0.1)
