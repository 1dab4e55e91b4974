"""Language modelling from left to right: at every token, which one is next."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from losses import tokens
from objectives.base import Batch, Variables, Writing
from objectives.per_token import PerToken, Rows, perplexity, require_text, where_real
from sampling import autoregressive

# Length of a sample of a model that could go on for ever.
_LENGTH = 256


@dataclasses.dataclass(frozen=True)
class CausalLM(PerToken):
  """Module `model` as in `PerToken`, causal, with the methods `start` and `step`; its fields
  `outputs` and `pool` are set from here.

  A row of R tokens gives R − 1 pairs of a token and the next. So that evaluation predicts every
  token of a split but the first, and each once, rows are windows with
  `config.data.text.next_token`.

  Attributes:
    vocabulary: tokens there are, given by the data.
    specials: the ids of tokens with a role, given by the data.
    token_bytes: bytes each token stands for, given by the data; None where that is not known.
    separate_documents: whether the token `end` hides what is before it. It ends a document as a
      target and begins the next as an input, so that every first token is predicted too, from
      nothing but `end`, as in sampling without a prompt.
  """

  vocabulary: int
  specials: Mapping[str, int]
  token_bytes: Sequence[int] | None
  separate_documents: bool

  def __post_init__(self):
    require_text('causal_lm', self.vocabulary)
    if self.separate_documents and 'end' not in self.specials:
      raise UserError(
        'config.objective.separate_documents needs the token that ends a document; add "end" to '
        'config.data.text.specials'
      )
    model = self.modules['model']
    if not getattr(model, 'causal', True):
      raise UserError(
        'config.modules.model.causal=False lets the model see the token it is to predict; set it '
        'to True, or use config.objective.name=masked_lm'
      )
    model = model.clone(outputs=self.vocabulary, pool='none')
    object.__setattr__(self, 'modules', {**self.modules, 'model': model})

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Means over the targets of each row: `loss` in nats, `accuracy` of the likeliest token, and
    `bytes`; their number as `weight`."""
    rows, logits = self._predicted(variables, batch, key)
    figures = self._figures(rows, logits)
    if self.token_bytes is not None:
      size = jnp.asarray(np.asarray(self.token_bytes, np.float32))[rows.targets]
      figures['bytes'] = tokens.mean(size, rows.targets >= 0, axis=-1)
    return figures

  def derive(self, figures: Mapping[str, float]) -> dict[str, float]:
    """With `perplexity`, and `bits_per_byte` in place of `bytes`.

    Bits of all tokens, of `end` too, over the bytes of the text: tokenizers can be compared by it.
    """
    derived = {name: value for name, value in figures.items() if name != 'bytes'}
    derived['perplexity'] = perplexity(figures['loss'])
    if figures.get('bytes'):
      derived['bits_per_byte'] = figures['loss'] / math.log(2) / figures['bytes']
    return derived

  # --- texts

  def sample(
    self,
    variables: Variables,
    key: jax.Array,
    num: int,
    prompt: jax.Array | None = None,
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
  ) -> jax.Array:
    """Texts int32 [num, length], the prompt first; the first k of them do not depend on `num`.

    Args:
      prompt: int32 [P], which all texts begin with; None or empty for the token `end`, behind which
        a document begins, or where there is none for token 0.
      length: tokens, prompt included; None for as many as the model can see, or 256 where it has no
        bound.
      temperature: 0 takes the likeliest token.
      top_k: likeliest tokens that are drawn from; 0 for all.
      top_p: share of the probability that is drawn from, the likeliest first; above 0 to 1.

    Raises:
      UserError: one of them cannot be; not noticed of a value that is traced.
    """
    if prompt is None or not prompt.shape[-1]:
      prompt = np.array([self.specials.get('end', 0)], np.int32)
    if length is None:
      length = self._context or _LENGTH
    self._check(prompt, length, temperature, top_k, top_p)
    loop = self._begin(variables, jnp.broadcast_to(prompt, (num, prompt.shape[-1])), key, length)
    return self._advance(variables, loop, length, temperature, top_k, top_p).tokens

  @property
  def writing(self) -> Writing:
    return Writing(self._begin, self._advance, self._check, self._context)

  @property
  def _context(self) -> int:
    return getattr(self.modules['model'], 'context', 0)

  def _check(self, prompt, length: int, temperature: float, top_k: int, top_p: float) -> None:
    autoregressive.check(prompt, length, self.vocabulary, self._context, temperature, top_k, top_p)

  def _begin(self, variables: Variables, prompts: jax.Array, key: jax.Array, length: int):
    carry = self.modules['model'].apply(
      variables['model'], prompts.shape[0], length, method='start'
    )
    return autoregressive.begin(carry, prompts, key, length)

  def _advance(self, variables: Variables, loop, count, temperature, top_k, top_p):
    def step(carry, tokens: jax.Array, position: jax.Array):
      return self.modules['model'].apply(variables['model'], carry, tokens, position, method='step')

    return autoregressive.advance(step, loop, count, temperature, top_k, top_p)

  # --- training

  def rows(self, batch: Batch, key: jax.Array) -> Rows:
    del key
    inputs, targets = self._inputs(batch['tokens']), batch['tokens'][:, 1:]
    segments = None
    if self.separate_documents:
      segments = jnp.cumsum(inputs == self.specials['end'], axis=1)
    # Padding is behind all that is real, so that a causal model does not see it anyway.
    return Rows(inputs, where_real(targets, batch['length'] - 1), None, segments)

  def _inputs(self, tokens: jax.Array) -> jax.Array:
    return tokens[:, :-1]
