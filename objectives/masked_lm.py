"""Masked language modelling (Devlin et al. 2019, section 3.1): predict the tokens hidden."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from objectives.base import Batch, Legend, Predictor, Row, stream_keys
from objectives.per_token import PerToken, Rows, perplexity, require_text, where_real
from objectives.rankings import ranked, top_option
from options import option


@dataclasses.dataclass(frozen=True)
class MaskedLM(PerToken):
  """Module `model` as in `PerToken`, not causal; its fields `outputs` and `pool` are set from here.

  Each real token without a role is chosen with probability `mask_rate`, independently. It is to be
  predicted; in its place the model sees the mask, a random token without a role, or itself.

  Attributes:
    vocabulary: tokens there are, given by the data.
    specials: the ids of tokens with a role, given by the data.
  """

  vocabulary: int
  specials: Mapping[str, int]
  mask_rate: float = option(
    'Probability that a token is chosen; 0.15 in the paper.', above=0, high=1
  )
  mask_token_fraction: float = option(
    'Share of the chosen tokens that the mask replaces; 0.8 in the paper.', low=0, high=1
  )
  random_token_fraction: float = option(
    'Share of them that a random token replaces; 0.1 in the paper. The rest stay.', low=0, high=1
  )

  def __post_init__(self):
    require_text('masked_lm', self.vocabulary)
    where = 'config.objective'
    if 'mask' not in self.specials:
      raise UserError(
        f'{where}.name=masked_lm needs a token that hides others; add "mask" to '
        'config.data.text.specials'
      )
    fractions = self.mask_token_fraction, self.random_token_fraction
    # A hair more than 1, because 0.9 + 0.1 need not be 1.
    if sum(fractions) > 1 + 1e-6:
      raise UserError(
        f'{where}.mask_token_fraction={fractions[0]} and {where}.random_token_fraction='
        f'{fractions[1]} must be at most 1 together'
      )
    model = self.modules['model']
    if model.causal:
      raise UserError(
        'config.modules.model.causal=True hides what is right of a masked token; set it to False, '
        'or use config.objective.name=causal_lm'
      )
    self._configure('model', outputs=self.vocabulary, pool='none')

  def derive(self, figures: Mapping[str, float]) -> dict[str, float]:
    """With `perplexity`, of the masked tokens."""
    return {**figures, 'perplexity': perplexity(figures['loss'])}

  def rows(self, batch: Batch, keys: jax.Array) -> Rows:
    """Inputs with masked tokens, chosen from each row's own key, and targets at these alone."""
    tokens = batch['tokens']
    roles = np.isin(np.arange(self.vocabulary), list(self.specials.values()))
    ordinary = jnp.asarray(np.flatnonzero(~roles), jnp.int32)

    def choices(key: jax.Array):
      keys = jax.random.split(key, 3)
      shape = tokens.shape[1:]
      chosen = jax.random.uniform(keys[0], shape) < self.mask_rate
      other = ordinary[jax.random.randint(keys[2], shape, 0, len(ordinary))]
      return chosen, jax.random.uniform(keys[1], shape), other

    chosen, fate, other = jax.vmap(choices)(stream_keys(keys, 'masks'))
    can_be = (where_real(tokens, batch['length']) >= 0) & ~jnp.asarray(roles)[tokens]
    chosen &= can_be
    seen = jnp.where(
      fate < self.mask_token_fraction,
      self.specials['mask'],
      jnp.where(fate < self.mask_token_fraction + self.random_token_fraction, other, tokens),
    )
    return Rows(
      jnp.where(chosen, seen, tokens), jnp.where(chosen, tokens, -1), batch['length'], None
    )

  # --- predictions

  @property
  def predictor(self) -> Predictor:
    options = {'top': top_option(5, 'tokens in place of a mask')}
    marks = ('mask',)
    return Predictor(
      'tokens', self._probabilities, self._conclude, _mask_rows, options, marks=marks
    )

  def _conclude(
    self, means: Mapping[str, jax.Array], batch: Batch, top: int
  ) -> dict[str, jax.Array]:
    """The likeliest entries of each token, and where the masks are; all of [B, T, V] is large."""
    probability, entries = jax.lax.top_k(means['probability'], min(top, self.vocabulary))
    # A row is padded with the entry 0, or with `pad`.
    masked = where_real(batch['tokens'], batch['length']) == self.specials['mask']
    return {'prediction': entries, 'probability': probability, 'masked': masked}


def _mask_rows(values: Mapping[str, Any], legend: Legend, top: int) -> list[Row]:
  """A row for each mask: its number in the text, and the likeliest tokens."""
  del top
  return [
    {
      'mask': legend.marks_before + number,
      **ranked(
        'token',
        [legend.decode(int(entry)) for entry in values['prediction'][at]],
        values['probability'][at],
        legend.whole,
      ),
    }
    for number, at in enumerate(np.flatnonzero(values['masked']), 1)
  ]
