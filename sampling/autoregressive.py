"""Autoregressive decoding: a loop that samples tokens and feeds them back to a model.

The loop is independent of the model. Its function `step` takes (carry, tokens int32 [B], positions
int32 [B]), reads each row's token at its position, and returns (carry, logits [B, V] of the next
tokens). The carry is a cache of keys and values, or the state of a recurrent network.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp

from options import Option

Carry = Any
Step = Callable[[Carry, jax.Array, jax.Array], tuple[Carry, jax.Array]]
# (tokens int32 [B, length], positions int32 [B]) -> logits [B, V] after `positions` tokens
Window = Callable[[jax.Array, jax.Array], jax.Array]

# The options of `sample_tokens`.
OPTIONS = {
  'temperature': Option(
    float, 1.0, 'Softmax temperature; 0 is greedy decoding.', low=0, high=1_000_000
  ),
  'top_k': Option(int, 0, 'Sample among this many most likely tokens; 0 is all.', low=0),
  'top_p': Option(
    float,
    1.0,
    'Sample among the most likely tokens that together have this probability; 1 is all.',
    above=0,
    high=1,
  ),
}


class Options(TypedDict):
  """The options of `sample_tokens` by name; each may be traced."""

  temperature: jax.Array | float
  top_k: jax.Array | int
  top_p: jax.Array | float


class DecodeState(NamedTuple):
  """The state of the decoding loop.

  Attributes:
    tokens: int32 [B, length]; those from a row's position on are not sampled yet.
    positions: int32 [B], the number of tokens that each row has, its prompt included.
    keys: PRNG keys [B].
    logits: [B, V], the logits of the token at each row's position.
    carry: the model's carry after the tokens before each row's position; None if all logits are
      computed by the `window` function of `advance`.
  """

  tokens: jax.Array
  positions: jax.Array
  keys: jax.Array
  logits: jax.Array
  carry: Carry


def start(
  carry: Carry,
  logits: jax.Array,
  prompts: jax.Array,
  lengths: jax.Array,
  keys: jax.Array,
  length: int,
) -> DecodeState:
  """Returns the decoding state after the prompts.

  Args:
    carry: the model's carry after the prompts.
    logits: [B, V], the logits of the token after each prompt.
    prompts: int32 [B, P], padded on the right.
    lengths: int32 [B], number of tokens of each prompt.
    keys: PRNG keys [B]; row b at position t is sampled with `fold_in(keys[b], t)`, so that a row
      does not depend on the number of rows, nor on how often `advance` is called.
    length: largest number of tokens of a text, with its prompt; at least P.
  """
  rows, given = prompts.shape
  tokens = jnp.zeros((rows, length), jnp.int32).at[:, :given].set(prompts)
  return DecodeState(tokens, jnp.asarray(lengths, jnp.int32), keys, logits, carry)


def advance(
  step: Step,
  state: DecodeState,
  count: jax.Array | int,
  context: int,
  window: Window,
  **options: Unpack[Options],
) -> DecodeState:
  """Returns the state with up to `count` more tokens in every row.

  Args:
    step: the step function of the model, see above.
    state: the state so far; may be donated. Like `count` and the options it may be traced, so one
      compiled program serves every value.
    count: number of tokens to sample.
    context: largest number of tokens that `step` can attend to; 0 for no bound. Once a row has
      more, `window` computes the logits of all rows.
    window: computes logits from the last `context` tokens of each row, without a carry.
    **options: the options of `sample_tokens`.
  """
  rows, length = state.tokens.shape
  last = jnp.minimum(state.positions + count, length)

  def next_logits(state: DecodeState, tokens: jax.Array, sampled: jax.Array):
    """Returns (carry, logits) after the sampled tokens int32 [B], which `tokens` has already."""
    after = state.positions + 1
    by_step = lambda: step(state.carry, sampled, state.positions)  # noqa: E731
    by_window = lambda: (state.carry, window(tokens, after))  # noqa: E731
    if state.carry is None:
      return by_window()
    if not context or length <= context:
      return by_step()
    return jax.lax.cond(jnp.any(after > context), by_window, by_step)

  # Derived for all positions at once: token by token this would take a tenth of the whole time.
  keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
    state.keys, jnp.arange(length)
  )

  def sample_next(state: DecodeState) -> DecodeState:
    here = jnp.arange(length) == state.positions[:, None]
    sampled = sample_tokens(state.logits, keys[jnp.arange(rows), state.positions], **options)
    growing = state.positions < last
    # Not a scatter, which XLA's CPU backend turns into a loop over the rows.
    tokens = jnp.where(here & growing[:, None], sampled[:, None], state.tokens)
    carry, logits = next_logits(state, tokens, sampled)
    return DecodeState(tokens, state.positions + growing, state.keys, logits, carry)

  return jax.lax.while_loop(lambda state: (state.positions < last).any(), sample_next, state)


def sample_tokens(
  logits: jax.Array,
  keys: jax.Array,
  temperature: jax.Array | float,
  top_k: jax.Array | int,
  top_p: jax.Array | float,
) -> jax.Array:
  """Samples one token per row, int32 [B], from softmax(logits / temperature), maybe truncated.

  Args:
    logits: [B, V].
    keys: PRNG keys [B].
    temperature: 0 or more; 0 takes the most likely token.
    top_k: number of most likely tokens to sample from; 0 is all (Fan et al. 2018).
    top_p: above 0 to 1; of those, only the smallest set of most likely tokens whose probability is
      at least this is sampled from, 1 is all (nucleus sampling, Holtzman et al. 2020). Ties are
      broken in favour of the smaller id.
  """
  logits = logits.astype(jnp.float32)

  def most_likely() -> jax.Array:
    return logits.argmax(axis=-1)

  def from_all() -> jax.Array:
    return (_scaled(logits, temperature) + _noise(keys, logits)).argmax(axis=-1)

  def from_some() -> jax.Array:
    order = jnp.argsort(-logits, axis=-1)
    scaled = jnp.take_along_axis(_scaled(logits, temperature), order, axis=-1)
    noise = jnp.take_along_axis(_noise(keys, logits), order, axis=-1)
    best = jnp.where(_kept(scaled, top_k, top_p), scaled + noise, -jnp.inf).argmax(axis=-1)
    return jnp.take_along_axis(order, best[:, None], axis=-1)[:, 0]

  # Noise and sorting cost more than the rest, so each is computed only where it is needed.
  is_truncated = (jnp.asarray(top_k) > 0) | (jnp.asarray(top_p) < 1)
  branch = jnp.where(jnp.asarray(temperature) == 0, 0, 1 + is_truncated)
  return jax.lax.switch(branch, (most_likely, from_all, from_some)).astype(jnp.int32)


def _scaled(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
  """Returns (l − max l) / τ, which does not overflow at a small temperature."""
  return (logits - logits.max(axis=-1, keepdims=True)) / temperature


def _noise(keys: jax.Array, logits: jax.Array) -> jax.Array:
  """Returns Gumbel noise g [B, V]: argmax lᵢ + gᵢ is distributed as softmax(l) (Gumbel 1954)."""
  return jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)


def _kept(logits: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
  """Returns bool [B, V]: which entries of logits [B, V], sorted descending, can be sampled."""
  rank = jnp.arange(logits.shape[-1])
  in_top_k = (rank < top_k) | (jnp.asarray(top_k) == 0)
  probability = jax.nn.softmax(jnp.where(in_top_k, logits, -jnp.inf), axis=-1)
  before = jnp.cumsum(probability, axis=-1) - probability
  return in_top_k & (before < top_p)
