"""Text token by token: one loop for the prompt and what follows it.

`step` takes (carry, tokens int32 [B], position int32 scalar), puts the tokens at that position, and
returns (carry, logits [B, V] of the tokens behind them). The carry is a cache of keys and values,
or the state of a recurrent network; the loop does not look into it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from options import Option

Carry = Any
# The options of `draw`.
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
Step = Callable[[Carry, jax.Array, jax.Array], tuple[Carry, jax.Array]]


class Loop(NamedTuple):
  """Texts on their way.

  Attributes:
    tokens: int32 [B, length], the prompts first; what comes behind both the prompt and `position`
      is not drawn yet, and 0.
    position: int32 scalar from 1 to length, how many of them stand; the model has seen all of these
      but the last.
    prompt: int32 scalar, how many of them are given.
    keys: one PRNG key for each row, [B].
    carry: of the model.
  """

  tokens: jax.Array
  position: jax.Array
  prompt: jax.Array
  keys: jax.Array
  carry: Carry


def begin(carry: Carry, prompts: jax.Array, keys: jax.Array, length: int) -> Loop:
  """The loop before its first step.

  Args:
    carry: the model's, before its first token.
    prompts: int32 [B, P], with 0 < P < length.
    keys: PRNG keys [B]; row b at position t draws from `fold_in(keys[b], t)`, so that a row does
      not depend on how many there are, nor on how often `advance` was called.
    length: of the texts, prompt included.
  """
  rows, given = prompts.shape
  tokens = jnp.zeros((rows, length), jnp.int32).at[:, :given].set(prompts)
  return Loop(tokens, jnp.int32(1), jnp.int32(given), keys, carry)


def advance(
  step: Step,
  loop: Loop,
  count: jax.Array | int,
  temperature: jax.Array | float,
  top_k: jax.Array | int,
  top_p: jax.Array | float,
) -> Loop:
  """The loop with up to `count` tokens more, those of the prompt counted like the others.

  Every argument but `step` may be traced, so one compiled program serves them all; `loop` may be
  donated. The last three are those of `draw`.
  """
  last = jnp.minimum(loop.position + count, loop.tokens.shape[1])

  def one(loop: Loop) -> Loop:
    at = loop.position
    carry, logits = step(loop.carry, loop.tokens[:, at - 1], at - 1)
    keys = jax.vmap(jax.random.fold_in, (0, None))(loop.keys, at)
    drawn = draw(logits, keys, temperature, top_k, top_p)
    chosen = jnp.where(at < loop.prompt, loop.tokens[:, at], drawn)
    return loop._replace(tokens=loop.tokens.at[:, at].set(chosen), position=at + 1, carry=carry)

  return jax.lax.while_loop(lambda loop: loop.position < last, one, loop)


def draw(
  logits: jax.Array,
  keys: jax.Array,
  temperature: jax.Array | float,
  top_k: jax.Array | int,
  top_p: jax.Array | float,
) -> jax.Array:
  """One token a row, int32 [B], from softmax(logits / temperature) cut to its most likely tokens.

  Args:
    logits: [B, V].
    keys: [B].
    temperature: 0 or more; 0 takes the likeliest token.
    top_k: how many tokens are kept; 0 keeps all (Fan et al. 2018).
    top_p: above 0 to 1; of those, the fewest likeliest ones are kept whose shares come to this
      much, 1 keeps all (nucleus sampling, Holtzman et al. 2020). Of equals the first is likelier.
  """
  logits = logits.astype(jnp.float32)

  def likeliest() -> jax.Array:
    return logits.argmax(axis=-1)

  def from_all() -> jax.Array:
    return (_scaled(logits, temperature) + _noise(keys, logits)).argmax(axis=-1)

  def from_some() -> jax.Array:
    order = jnp.argsort(-logits, axis=-1)
    scaled = jnp.take_along_axis(_scaled(logits, temperature), order, axis=-1)
    noise = jnp.take_along_axis(_noise(keys, logits), order, axis=-1)
    best = jnp.where(_kept(scaled, top_k, top_p), scaled + noise, -jnp.inf).argmax(axis=-1)
    return jnp.take_along_axis(order, best[:, None], axis=-1)[:, 0]

  # Noise and sorting cost more than the rest, so each only where it is asked for.
  is_cut = (jnp.asarray(top_k) > 0) | (jnp.asarray(top_p) < 1)
  way = jnp.where(jnp.asarray(temperature) == 0, 0, 1 + is_cut)
  return jax.lax.switch(way, (likeliest, from_all, from_some)).astype(jnp.int32)


def _scaled(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
  """l / τ, less its largest, so that a small temperature does not overflow."""
  return (logits - logits.max(axis=-1, keepdims=True)) / temperature


def _noise(keys: jax.Array, logits: jax.Array) -> jax.Array:
  """g [B, V]: the index of the largest lᵢ + gᵢ is distributed as softmax(l) (Gumbel 1954)."""
  return jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)


def _kept(logits: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
  """Which places of logits [B, V], the largest first, can be drawn: bool [B, V]."""
  rank = jnp.arange(logits.shape[-1])
  among = (rank < top_k) | (jnp.asarray(top_k) == 0)
  share = jax.nn.softmax(jnp.where(among, logits, -jnp.inf), axis=-1)
  before = jnp.cumsum(share, axis=-1) - share
  return among & (before < top_p)


def check(
  prompt: jax.Array | np.ndarray,
  length: int,
  vocabulary: int,
  context: int,
  temperature: jax.Array | float,
  top_k: jax.Array | int,
  top_p: jax.Array | float,
) -> None:
  """Refuses what no text can be drawn with; values that are traced are not looked at.

  Args:
    prompt: int [..., P].
    length: of the text, prompt included.
    vocabulary: tokens are from 0 to below this.
    context: the longest text the model can see; 0 for no bound.

  Raises:
    UserError: one of them cannot be.
  """
  if context and length > context:
    raise UserError(
      f'--length={length} is past the context of this model, {context} tokens; ask for less'
    )
  given = prompt.shape[-1]
  if given >= length:
    raise UserError(
      f'the prompt has {given} tokens and --length={length} counts them too; give a '
      'longer --length or a shorter --prompt'
    )
  if _known(prompt):
    wrong = np.asarray(prompt)[(np.asarray(prompt) < 0) | (np.asarray(prompt) >= vocabulary)]
    if wrong.size:
      raise UserError(f'token {wrong[0]} of the prompt is none; they go from 0 to {vocabulary - 1}')
  if _known(temperature) and not 0 <= temperature < np.inf:
    raise UserError(f'--temperature={temperature} must be 0 (the likeliest token) or more')
  if _known(top_k) and top_k < 0:
    raise UserError(f'--top_k={top_k} must be 0 (all tokens) or more')
  if _known(top_p) and not 0 < top_p <= 1:
    raise UserError(f'--top_p={top_p} must be above 0 and at most 1 (all tokens)')


def _known(value) -> bool:
  return not isinstance(value, jax.core.Tracer)
