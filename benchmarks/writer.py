"""Draws texts from the language model of a config."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from engine import runtime
from engine.session import open_session
from engine.state import variables_for_sampling


class Writer:
  """Draws `num` texts of `length` tokens on demand, from parameters as they are initialised.

  The programs are those of `commands/generate_text.py`; each text is written in one piece.
  """

  def __init__(self, config: ConfigDict, num: int, length: int):
    session = open_session(config)
    writing = session.objective.writing
    first = jnp.zeros((num, 1), jnp.int32)
    writing.check(first[0], length, 1.0, 0, 1.0)
    self._begin = jax.jit(lambda variables, key: writing.begin(variables, first, key, length))
    self._advance = jax.jit(
      writing.advance, donate_argnums=1, compiler_options=dict(runtime.compiler_options())
    )
    # How many tokens; temperature, top_k and top_p that leave the distribution as it is.
    self._how = jnp.int32(length), jnp.float32(1.0), jnp.int32(0), jnp.float32(1.0)
    self._variables = variables_for_sampling(session.init())
    self._key = jax.random.key(0)
    self._drawn = 0

  def run(self, steps: int) -> dict[str, float]:
    """Draws `steps` times and returns the last token of the last draw."""
    for _ in range(steps):
      loop = self._begin(self._variables, jax.random.fold_in(self._key, self._drawn))
      loop = self._advance(self._variables, loop, *self._how)
      self._drawn += 1
    return {'last': int(loop.tokens[-1, -1])}
