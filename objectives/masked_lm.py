"""Masked language modelling (Devlin et al. 2019, section 3.1): which token was hidden here."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from objectives.base import Batch, example_keys
from objectives.per_token import PerToken, Rows, perplexity, require_text, where_real


@dataclasses.dataclass(frozen=True)
class MaskedLM(PerToken):
  """Module `model` as in `PerToken`, not causal; its fields `outputs` and `pool` are set from here.

  Each real token without a role is chosen with probability `share`, by itself. What it was is to be
  predicted; in its place the model sees the mask, a random token without a role, or what it was.

  Attributes:
    vocabulary: tokens there are, given by the data.
    specials: the ids of tokens with a role, given by the data.
    share: of the tokens, chosen; 0.15 in the paper.
    masked: of those, hidden by the mask; 0.8.
    random: of those, replaced by another; 0.1. The rest stay.
  """

  vocabulary: int
  specials: Mapping[str, int]
  share: float
  masked: float
  random: float

  def __post_init__(self):
    require_text('masked_lm', self.vocabulary)
    where = 'config.objective'
    if 'mask' not in self.specials:
      raise UserError(
        f'{where}.name=masked_lm needs a token that hides others; add "mask" to '
        'config.data.text.specials'
      )
    if not 0 < self.share <= 1:
      raise UserError(f'{where}.share={self.share} must be above 0 and at most 1')
    # A hair more than 1, for 0.9 + 0.1 need not be 1.
    if min(self.masked, self.random) < 0 or self.masked + self.random > 1 + 1e-6:
      raise UserError(
        f'{where}.masked={self.masked} and {where}.random={self.random} must be 0 or more, and at '
        'most 1 together'
      )
    model = self.modules['model']
    if getattr(model, 'causal', False):
      raise UserError(
        'config.modules.model.causal=True hides what is right of a masked token; set it to False, '
        'or use config.objective.name=causal_lm'
      )
    model = model.clone(outputs=self.vocabulary, pool='none')
    object.__setattr__(self, 'modules', {**self.modules, 'model': model})

  def derive(self, figures: Mapping[str, float]) -> dict[str, float]:
    """With `perplexity`, of the masked tokens."""
    return {**figures, 'perplexity': perplexity(figures['loss'])}

  def rows(self, batch: Batch, key: jax.Array) -> Rows:
    """Draws by example and its position, so the same however the batch is cut."""
    tokens = batch['tokens']
    roles = np.isin(np.arange(self.vocabulary), list(self.specials.values()))
    ordinary = jnp.asarray(np.flatnonzero(~roles), jnp.int32)

    def drawn(key: jax.Array):
      keys = jax.random.split(key, 3)
      shape = tokens.shape[1:]
      chosen = jax.random.uniform(keys[0], shape) < self.share
      other = ordinary[jax.random.randint(keys[2], shape, 0, len(ordinary))]
      return chosen, jax.random.uniform(keys[1], shape), other

    chosen, fate, other = jax.vmap(drawn)(example_keys(key, batch))
    can_be = (where_real(tokens, batch['length']) >= 0) & ~jnp.asarray(roles)[tokens]
    chosen &= can_be
    seen = jnp.where(
      fate < self.masked,
      self.specials['mask'],
      jnp.where(fate < self.masked + self.random, other, tokens),
    )
    return Rows(
      jnp.where(chosen, seen, tokens), jnp.where(chosen, tokens, -1), batch['length'], None
    )
