"""Text generation by the language model of a config, for benchmarks."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from engine import runtime
from engine.session import open_session
from engine.state import averaged_variables
from objectives.base import numbered_keys


class TextGenerator:
  """Samples `num` texts of `length` tokens on demand, with untrained parameters.

  The programs are those of `commands/generate_text.py`; all tokens are sampled in one call.
  """

  def __init__(self, config: ConfigDict, num: int, length: int):
    session = open_session(config)
    sampler = session.objective.sampler
    numbers, prompts = jnp.arange(num), jnp.zeros((num, 1), jnp.int32)
    lengths = jnp.ones(num, jnp.int32)

    def start(variables, key):
      return sampler.start(variables, prompts, lengths, numbered_keys(key, numbers), length)

    self._start = jax.jit(start, compiler_options=session.determinism_options)
    settings = runtime.compiler_options(session.platform, determinism=session.train.determinism)
    self._advance = jax.jit(sampler.advance, donate_argnums=1, compiler_options=settings)
    self._length = jnp.int32(length)
    # Options that do not change the model's distribution.
    self._options = dict(temperature=jnp.float32(1.0), top_k=jnp.int32(0), top_p=jnp.float32(1.0))
    self._variables = averaged_variables(session.init(), session.averages)
    self._key = jax.random.key(0)
    self._sampled = 0

  def run(self, steps: int) -> dict[str, float]:
    """Samples all texts `steps` times; returns the last token sampled."""
    for _ in range(steps):
      state = self._start(self._variables, jax.random.fold_in(self._key, self._sampled))
      state = self._advance(self._variables, state, self._length, **self._options)
      self._sampled += 1
    return {'last': int(state.tokens[-1, -1])}
