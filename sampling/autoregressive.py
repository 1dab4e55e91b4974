"""Text token by token: the loop that samples tokens and feeds them back to a model.

The loop knows no model. `step` takes (carry, tokens int32 [B], positions int32 [B]), reads each
row's token at its position, and returns (carry, logits [B, V] of the next tokens). The carry is a
cache of keys and values, or the state of a recurrent network; the loop does not look into it.
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
  'temperature': Option(float, 1.0, 'Softmax temperature; 0 is greedy decoding.', low=0),
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
  """State of the decoding loop.

  Attributes:
    tokens: int32 [B, length]; those from a row's position on are not sampled yet.
    positions: int32 [B], how many tokens of each row there are, its prompt included.
    keys: PRNG keys [B].
    logits: [B, V], of the token at each row's position.
    carry: the model's, after the tokens before each row's position; None where every token comes
      from a window.
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
  """Returns the state after the prompts were read.

  Args:
    carry: of the model that has read the prompts.
    logits: [B, V], of the token after each prompt.
    prompts: int32 [B, P], padded on the right.
    lengths: int32 [B], tokens of each prompt.
    keys: PRNG keys [B]; row b at position t samples from `fold_in(keys[b], t)`, so that a row does
      not depend on how many there are, nor on how often `advance` is called.
    length: most tokens of a text, its prompt included; at least P.
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
    step: of the model.
    state: before; may be donated. Like `count` and the options it may be traced, so one compiled
      program serves every value.
    count: tokens to sample.
    context: most tokens that `step` can see; 0 for no bound. Once a row has more, the logits of all
      rows come from `window`.
    window: reads the last `context` tokens of each row anew.
    **options: those of `sample_tokens`.
  """
  rows, length = state.tokens.shape
  last = jnp.minimum(state.positions + count, length)

  def next_logits(state: DecodeState, tokens: jax.Array, sampled: jax.Array):
    """(carry, logits) after the sampled tokens int32 [B], which are in `tokens` already."""
    after = state.positions + 1
    cached = lambda: step(state.carry, sampled, state.positions)  # noqa: E731
    anew = lambda: (state.carry, window(tokens, after))  # noqa: E731
    if state.carry is None:
      return anew()
    if not context or length <= context:
      return cached()
    return jax.lax.cond(jnp.any(after > context), anew, cached)

  # Derived for all positions at once: token by token they would take a tenth of the time.
  keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
    state.keys, jnp.arange(length)
  )

  def one(state: DecodeState) -> DecodeState:
    here = jnp.arange(length) == state.positions[:, None]
    sampled = sample_tokens(state.logits, keys[jnp.arange(rows), state.positions], **options)
    growing = state.positions < last
    # Not a scatter, which XLA's CPU backend turns into a loop over the rows.
    tokens = jnp.where(here & growing[:, None], sampled[:, None], state.tokens)
    carry, logits = next_logits(state, tokens, sampled)
    return DecodeState(tokens, state.positions + growing, state.keys, logits, carry)

  return jax.lax.while_loop(lambda state: (state.positions < last).any(), one, state)


def sample_tokens(
  logits: jax.Array,
  keys: jax.Array,
  temperature: jax.Array | float,
  top_k: jax.Array | int,
  top_p: jax.Array | float,
) -> jax.Array:
  """Samples one token a row, int32 [B], from softmax(logits / temperature) cut to its top.

  Args:
    logits: [B, V].
    keys: [B].
    temperature: 0 or more; 0 takes the most likely token.
    top_k: how many tokens are kept; 0 keeps all (Fan et al. 2018).
    top_p: above 0 to 1; of those, the fewest most likely ones are kept that together have this
      probability, 1 keeps all (nucleus sampling, Holtzman et al. 2020). Of equals the first is
      taken for the likelier.
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
  is_cut = (jnp.asarray(top_k) > 0) | (jnp.asarray(top_p) < 1)
  way = jnp.where(jnp.asarray(temperature) == 0, 0, 1 + is_cut)
  return jax.lax.switch(way, (most_likely, from_all, from_some)).astype(jnp.int32)


def _scaled(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
  """l / τ, less its largest, so that a small temperature does not overflow."""
  return (logits - logits.max(axis=-1, keepdims=True)) / temperature


def _noise(keys: jax.Array, logits: jax.Array) -> jax.Array:
  """g [B, V]: the index of the largest lᵢ + gᵢ is distributed as softmax(l) (Gumbel 1954)."""
  return jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)


def _kept(logits: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
  """Which entries of logits [B, V], the largest first, can be sampled: bool [B, V]."""
  rank = jnp.arange(logits.shape[-1])
  among = (rank < top_k) | (jnp.asarray(top_k) == 0)
  share = jax.nn.softmax(jnp.where(among, logits, -jnp.inf), axis=-1)
  before = jnp.cumsum(share, axis=-1) - share
  return among & (before < top_p)
