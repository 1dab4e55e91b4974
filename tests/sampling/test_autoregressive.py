"""The loop over tokens, with a model made by hand: a table of logits for each last token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sampling import autoregressive

KEY = jax.random.key(3)
V = 7
TABLE = jax.random.normal(jax.random.key(0), (V, V)) * 2


def step(carry, tokens, positions):
  """The carry remembers what came where."""
  return carry.at[jnp.arange(len(tokens)), positions].set(tokens, mode='drop'), TABLE[tokens]


@jax.jit
def ADVANCE(state, count, temperature, top_k, top_p):
  return autoregressive.advance(
    step, state, count, 0, None, temperature=temperature, top_k=top_k, top_p=top_p
  )


DRAW = jax.jit(autoregressive.sample_tokens)


def begun(prompts, length, key=KEY):
  prompts = jnp.asarray(prompts, jnp.int32)
  rows, given = prompts.shape
  carry = jnp.full((rows, length), -1, jnp.int32).at[:, :given].set(prompts)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
  lengths = jnp.full(rows, given)
  return autoregressive.start(carry, TABLE[prompts[:, -1]], prompts, lengths, keys, length)


def text(prompts, length, temperature=1.0, top_k=0, top_p=1.0, key=KEY):
  return ADVANCE(begun(prompts, length, key), length, temperature, top_k, top_p)


def draws(logits, number=20_000, temperature=1.0, top_k=0, top_p=1.0):
  """How often each token comes, [V]."""
  keys = jax.random.split(jax.random.key(5), number)
  rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (number, len(logits)))
  drawn = DRAW(rows, keys, temperature, top_k, top_p)
  return np.bincount(drawn, minlength=len(logits)) / number


# --- one draw

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
  # Four standard errors of 20,000 draws.
  np.testing.assert_allclose(draws(np.log(SHARES), **options), wanted, atol=0.0142)


def test_a_token_never_comes_that_cannot():
  assert draws([0.0, -jnp.inf, 1.0])[1] == 0
  assert draws([0.0, -jnp.inf, 1.0], top_p=0.999)[1] == 0


def test_keeping_all_by_rank_draws_what_keeping_all_draws():
  logits = jax.random.normal(KEY, (50, 9))
  keys = jax.random.split(KEY, 50)
  drawn = DRAW(logits, keys, 0.7, 0, 1.0)
  np.testing.assert_array_equal(DRAW(logits, keys, 0.7, 9, 1.0), drawn)
  assert drawn.dtype == jnp.int32 and len(np.unique(drawn)) > 3


def test_shares_that_come_to_top_p_exactly_are_enough():
  np.testing.assert_array_equal(draws([-jnp.inf, 0.0, 0.0], number=50, top_p=0.5), [0, 1, 0])


@pytest.mark.parametrize('top_p', [1.0, 0.9])
def test_a_temperature_that_makes_logits_overflow(top_p):
  drawn = draws([40.0, 50.0, 0.0], number=50, temperature=1e-37, top_p=top_p)
  np.testing.assert_array_equal(drawn, [0, 1, 0])


# --- the loop


def test_greedy_text_by_hand():
  loop = text([[2, 5], [0, 0]], 9, temperature=0)
  for row, first in zip(np.asarray(loop.tokens), ([2, 5], [0, 0])):
    wanted = list(first)
    while len(wanted) < 9:
      wanted.append(int(np.argmax(TABLE[wanted[-1]])))
    assert row.tolist() == wanted
  assert loop.positions.tolist() == [9, 9] and loop.tokens.dtype == jnp.int32


def test_the_model_reads_every_token_once_at_its_place():
  loop = text([[1, 2, 3], [4, 5, 6]], 8)
  np.testing.assert_array_equal(loop.carry, loop.tokens)
  np.testing.assert_array_equal(loop.tokens[:, :3], [[1, 2, 3], [4, 5, 6]])


def test_a_row_depends_neither_on_the_others_nor_on_how_the_loop_was_cut():
  whole = text([[1]] * 4, 12).tokens
  np.testing.assert_array_equal(text([[1]] * 2, 12).tokens, whole[:2])
  assert len({tuple(row) for row in np.asarray(whole).tolist()}) == 4
  loop = begun([[1]] * 4, 12)
  positions = []
  while int(loop.positions[0]) < 12:
    loop = ADVANCE(loop, 5, 1.0, 0, 1.0)
    positions.append(int(loop.positions[0]))
    np.testing.assert_array_equal(loop.tokens[:, : positions[-1]], whole[:, : positions[-1]])
  assert positions == [6, 11, 12]
  np.testing.assert_array_equal(loop.tokens, whole)
  assert (np.asarray(text([[1]] * 4, 12, key=jax.random.key(4)).tokens) != whole).any()


def test_a_place_draws_anew_where_the_same_token_stands_again():
  # One token is as likely as another, so a key used twice would show as a period.
  flat = jnp.zeros((V, V))
  options = dict(temperature=1.0, top_k=0, top_p=1.0)
  started = begun([[0]], 200)._replace(logits=flat[:1])
  loop = autoregressive.advance(
    lambda carry, tokens, position: (carry, flat[tokens]), started, 200, 0, None, **options
  )
  assert len(np.unique(loop.tokens[0, 1:])) == V


def test_one_compiled_program_serves_every_option_in_place():
  def advanced(state, count, *options):
    named = dict(zip(('temperature', 'top_k', 'top_p'), options))
    return autoregressive.advance(step, state, count, 0, None, **named)

  advance = jax.jit(advanced, donate_argnums=0)
  begin = jax.jit(lambda prompts: begun(prompts, 10))
  for options in ((0.0, 0, 1.0), (0.9, 0, 1.0), (1.3, 3, 0.5)):
    typed = [jnp.asarray(value, kind) for value, kind in zip(options, ('f4', 'i4', 'f4'))]
    started = begin(jnp.array([[1, 2]]))
    made = advance(started, jnp.int32(20), *typed)
    np.testing.assert_array_equal(made.tokens, text([[1, 2]], 10, *options).tokens)
    assert started.carry.is_deleted() and started.tokens.is_deleted()
  assert advance._cache_size() == 1
