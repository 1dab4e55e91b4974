"""The loop over tokens, with a model made by hand: a table of logits for each last token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from options import complete
from sampling import autoregressive

KEY = jax.random.key(3)
V = 7
TABLE = jax.random.normal(jax.random.key(0), (V, V)) * 2


def step(carry, tokens, positions):
  """The carry remembers which token came at which position of each row."""
  return carry.at[jnp.arange(len(tokens)), positions].set(tokens, mode='drop'), TABLE[tokens]


def window(tokens, positions):
  """Logits by the last token, shifted so that they tell where they come from."""
  last = jnp.take_along_axis(tokens, positions[:, None] - 1, axis=1)[:, 0]
  return jnp.roll(TABLE, 1, axis=1)[last]


ADVANCE = jax.jit(
  lambda state, count, context, **options: autoregressive.advance(
    step, state, count, context, window, **options
  ),
  static_argnums=2,
)
SAMPLE = jax.jit(autoregressive.sample_tokens)


def begun(prompts, length, key=KEY):
  """The state after prompts, lists of any lengths, which are padded with a token of their own."""
  lengths = np.array([len(prompt) for prompt in prompts])
  padded = np.full((len(prompts), lengths.max()), V - 1)
  carry = np.full((len(prompts), length), -1)
  for row, kept, prompt in zip(padded, carry, prompts):
    row[: len(prompt)], kept[: len(prompt)] = prompt, prompt
  logits = TABLE[np.array([prompt[-1] for prompt in prompts])]
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(prompts)))
  padded, carry = jnp.asarray(padded, jnp.int32), jnp.asarray(carry, jnp.int32)
  return autoregressive.start(carry, logits, padded, lengths, keys, length)


def text(prompts, length, temperature=1.0, top_k=0, top_p=1.0, key=KEY, context=0):
  options = dict(temperature=temperature, top_k=top_k, top_p=top_p)
  return ADVANCE(begun(prompts, length, key), length, context, **options)


def frequencies(logits, number=20_000, temperature=1.0, top_k=0, top_p=1.0):
  """How often each token comes, [V]."""
  keys = jax.random.split(jax.random.key(5), number)
  rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (number, len(logits)))
  sampled = SAMPLE(rows, keys, temperature, top_k, top_p)
  return np.bincount(sampled, minlength=len(logits)) / number


# --- one token

# Shares 0.5, 0.2, 0.2, 0.1 in an order that is not theirs.
SHARES = np.array([0.2, 0.5, 0.1, 0.2])


@pytest.mark.parametrize(
  ('options', 'wanted'),
  [
    (dict(), [0.2, 0.5, 0.1, 0.2]),
    (dict(top_k=1), [0, 1, 0, 0]),
    (dict(top_k=3), [2 / 9, 5 / 9, 0, 2 / 9]),
    (dict(top_k=9), [0.2, 0.5, 0.1, 0.2]),
    # Of equals the first.
    (dict(top_k=2), [2 / 7, 5 / 7, 0, 0]),
    (dict(top_p=0.01), [0, 1, 0, 0]),
    (dict(top_p=0.49), [0, 1, 0, 0]),
    (dict(top_p=0.6), [2 / 7, 5 / 7, 0, 0]),
    (dict(top_p=0.8), [2 / 9, 5 / 9, 0, 2 / 9]),
    (dict(top_p=0.95), [0.2, 0.5, 0.1, 0.2]),
    # The share is of what top_k leaves: 5/9 of three.
    (dict(top_k=3, top_p=0.55), [0, 1, 0, 0]),
    # At temperature 1/2 shares go as their squares: 25, 4, 4, 1 of 34.
    (dict(temperature=0.5), [4 / 34, 25 / 34, 1 / 34, 4 / 34]),
    (dict(temperature=0.5, top_p=0.73), [0, 1, 0, 0]),
    (dict(temperature=2.0, top_k=1), [0, 1, 0, 0]),
    (dict(temperature=0, top_k=3, top_p=0.9), [0, 1, 0, 0]),
    (dict(temperature=1e-30), [0, 1, 0, 0]),
    (dict(temperature=1e-30, top_p=0.9), [0, 1, 0, 0]),
  ],
)
def test_how_often_each_token_comes(options, wanted):
  # Four standard errors of 20,000 samples.
  np.testing.assert_allclose(frequencies(np.log(SHARES), **options), wanted, atol=0.0142)


def test_a_token_never_comes_that_cannot():
  assert frequencies([0.0, -jnp.inf, 1.0])[1] == 0
  assert frequencies([0.0, -jnp.inf, 1.0], top_p=0.999)[1] == 0


def test_keeping_all_by_rank_samples_what_keeping_all_samples():
  logits = jax.random.normal(KEY, (50, 9))
  keys = jax.random.split(KEY, 50)
  sampled = SAMPLE(logits, keys, 0.7, 0, 1.0)
  np.testing.assert_array_equal(SAMPLE(logits, keys, 0.7, 9, 1.0), sampled)
  assert sampled.dtype == jnp.int32 and len(np.unique(sampled)) > 3


def test_shares_that_come_to_top_p_exactly_are_enough():
  np.testing.assert_array_equal(frequencies([-jnp.inf, 0.0, 0.0], number=50, top_p=0.5), [0, 1, 0])


@pytest.mark.parametrize('top_p', [1.0, 0.9])
def test_a_temperature_that_makes_logits_overflow(top_p):
  sampled = frequencies([40.0, 50.0, 0.0], number=50, temperature=1e-37, top_p=top_p)
  np.testing.assert_array_equal(sampled, [0, 1, 0])


# --- the loop

PROMPTS = ([2, 5, 1], [0], [6, 6, 6, 3], [4, 2])


def test_greedy_text_by_hand():
  state = text(PROMPTS, 9, temperature=0)
  for row, first in zip(np.asarray(state.tokens), PROMPTS):
    wanted = list(first)
    while len(wanted) < 9:
      wanted.append(int(np.argmax(TABLE[wanted[-1]])))
    assert row.tolist() == wanted
  assert state.positions.tolist() == [9] * 4 and state.tokens.dtype == jnp.int32


def test_the_model_sees_every_token_once_at_its_position():
  state = text(PROMPTS, 8)
  np.testing.assert_array_equal(state.carry, state.tokens)
  for row, prompt in zip(np.asarray(state.tokens), PROMPTS):
    assert row[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize('temperature', [0.0, 1.0], ids=['greedy', 'sampled'])
def test_rows_with_prompts_of_different_lengths_are_each_as_alone(temperature):
  together = text(PROMPTS, 12, temperature)
  state = begun(PROMPTS, 12)
  for row, prompt in enumerate(PROMPTS):
    alone = begun([prompt], 12)._replace(keys=state.keys[row : row + 1])
    alone = ADVANCE(alone, 12, 0, temperature=temperature, top_k=0, top_p=1.0)
    np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])
    np.testing.assert_array_equal(together.carry[row], alone.carry[0])


@pytest.mark.parametrize('context', [0, 5], ids=['cached', 'past the context'])
def test_a_row_depends_neither_on_the_others_nor_on_how_the_loop_was_cut(context):
  whole = text([[1]] * 4, 12, context=context).tokens
  np.testing.assert_array_equal(text([[1]] * 2, 12, context=context).tokens, whole[:2])
  assert len({tuple(row) for row in np.asarray(whole).tolist()}) == 4
  state = begun([[1]] * 4, 12)
  positions = []
  while int(state.positions[0]) < 12:
    state = ADVANCE(state, 5, context, temperature=1.0, top_k=0, top_p=1.0)
    positions.append(int(state.positions[0]))
    np.testing.assert_array_equal(state.tokens[:, : positions[-1]], whole[:, : positions[-1]])
  assert positions == [6, 11, 12]
  np.testing.assert_array_equal(state.tokens, whole)
  other = text([[1]] * 4, 12, key=jax.random.key(4), context=context).tokens
  assert (np.asarray(other) != whole).any()


def test_every_row_gets_the_count_until_it_is_complete():
  state = begun(PROMPTS, 6)
  lengths = np.array([3, 1, 4, 2])
  for calls in (1, 2, 3):
    state = ADVANCE(state, 2, 0, temperature=1.0, top_k=0, top_p=1.0)
    np.testing.assert_array_equal(state.positions, np.minimum(lengths + 2 * calls, 6))
  before = np.asarray(state.tokens)
  state = ADVANCE(state, 2, 0, temperature=1.0, top_k=0, top_p=1.0)
  np.testing.assert_array_equal(state.tokens, before)


def greedy_past(context, prompt, length):
  """By hand: `step`'s logits while the text fits the context, then `window`'s."""
  wanted, table = list(prompt), TABLE
  while len(wanted) < length:
    wanted.append(int(np.argmax(table[wanted[-1]])))
    table = jnp.roll(TABLE, 1, axis=1) if len(wanted) > context else TABLE
  return wanted


def test_past_the_context_logits_come_from_the_window():
  state = text([[2, 5]], 12, temperature=0, context=5)
  assert state.tokens[0].tolist() == greedy_past(5, [2, 5], 12)
  assert greedy_past(5, [2, 5], 12) != greedy_past(12, [2, 5], 12)
  # The model's own step reads what fits, and nothing after it.
  assert state.carry[0].tolist() == [*state.tokens[0, :5].tolist(), *[-1] * 7]


def test_without_a_carry_every_token_comes_from_the_window():
  state = begun([[2, 5]], 9)._replace(carry=None)
  state = ADVANCE(state, 9, 2, temperature=0, top_k=0, top_p=1.0)
  assert state.tokens[0].tolist() == greedy_past(0, [2, 5], 9) and state.carry is None


def test_the_same_token_at_another_position_is_followed_by_another():
  # One token is as likely as another, so a key used twice would show as a period.
  flat = jnp.zeros((V, V))
  state = autoregressive.advance(
    lambda carry, tokens, positions: (carry, flat[tokens]),
    begun([[0]], 200)._replace(logits=flat[:1]),
    200,
    0,
    window,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
  )
  tokens = np.asarray(state.tokens[0, 1:])
  assert len(np.unique(tokens)) == V
  assert all((tokens[period:] != tokens[:-period]).any() for period in range(1, 100))


def test_one_compiled_program_serves_every_option_in_place():
  advance = jax.jit(
    lambda state, count, **options: autoregressive.advance(
      step, state, count, 0, window, **options
    ),
    donate_argnums=0,
  )
  for options in ((0.0, 0, 1.0), (0.9, 0, 1.0), (1.3, 3, 0.5)):
    names = ('temperature', 'top_k', 'top_p')
    typed = {n: jnp.asarray(v, kind) for n, v, kind in zip(names, options, ('f4', 'i4', 'f4'))}
    # Jitted, so that nothing that is donated is an array that `begun` reads.
    started = jax.jit(lambda: begun([[1, 2]], 10))()
    made = advance(started, jnp.int32(20), **typed)
    np.testing.assert_array_equal(made.tokens, text([[1, 2]], 10, *options).tokens)
    assert started.carry.is_deleted() and started.tokens.is_deleted()
  assert advance._cache_size() == 1


# --- what cannot be


@pytest.mark.parametrize(
  'values',
  [
    dict(temperature=-0.1),
    dict(temperature=float('nan')),
    dict(temperature=float('inf')),
    dict(top_k=-1),
    dict(top_p=0.0),
    dict(top_p=1.5),
    dict(top_p=float('nan')),
  ],
  ids=str,
)
def test_what_cannot_be(values):
  ((name, value),) = values.items()
  with pytest.raises(UserError, match=f'{name}={value} must be'):
    complete(autoregressive.OPTIONS, values, 'the sampler', '--')


def test_what_can_be():
  for values in ({}, dict(temperature=0.0, top_k=99, top_p=1e-3), dict(top_p=1.0)):
    made = complete(autoregressive.OPTIONS, values, 'the sampler', '--')
    assert made == {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, **values}
