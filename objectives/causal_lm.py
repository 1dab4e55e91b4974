"""Language modelling from left to right: predict the next token at every token."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from losses import tokens
from objectives.base import (
  Batch,
  Context,
  Legend,
  Mutable,
  Params,
  Predictor,
  Row,
  TextSampler,
  Variables,
)
from objectives.per_token import PerToken, Rows, perplexity, require_text, where_real
from options import Option, option
from sampling import autoregressive

# Tokens of a text of a model without a bound on them.
_LENGTH = 256
# Most tokens of a text: past it a slip of the keyboard is likelier.
_MOST_TOKENS = 1_000_000


@dataclasses.dataclass(frozen=True)
class CausalLM(PerToken):
  """Module `model` as in `PerToken`, causal, with the methods `read`, `step` and `losses`; its
  fields `outputs` and `pool` are set from here.

  A row of R tokens gives R − 1 pairs of a token and the next. So that evaluation predicts every
  token of a split but the first, and each once, rows are windows with
  `config.data.text.next_token`.

  Attributes:
    vocabulary: tokens there are, given by the data.
    specials: the ids of tokens with a role, given by the data.
    token_bytes: bytes each token stands for, given by the data; None where that is not known.
  """

  vocabulary: int
  specials: Mapping[str, int]
  token_bytes: Sequence[int] | None
  separate_documents: bool = option(
    'Whether the token `end` hides what is before it. It ends a document as a target and begins '
    'the next as an input, so that every first token is predicted too, from nothing but `end`, as '
    'in sampling without a prompt.'
  )
  loss_chunks: int = option(
    'How the training loss reads the logits: 0 as float32; 1 in the precision of products, without '
    'a float32 copy; more cut the tokens into as many chunks, whose logits are in memory one after '
    'the other and computed again for the gradient.',
    low=0,
    high=1000,
    default=0,
  )

  def __post_init__(self):
    require_text('causal_lm', self.vocabulary)
    if self.separate_documents and 'end' not in self.specials:
      raise UserError(
        'config.objective.separate_documents needs the token that ends a document; add "end" to '
        'config.data.text.specials'
      )
    model = self.modules['model']
    if not model.causal:
      raise UserError(
        'config.modules.model.causal=False lets the model see the token it is to predict; set it '
        'to True, or use config.objective.name=masked_lm'
      )
    self._configure('model', outputs=self.vocabulary, pool='none')

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """Means over the targets of each row: `loss` in nats, `accuracy` of the likeliest token, and
    `bytes`; their number as `weight`."""
    rows, logits = self._predict(variables, batch, keys)
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

  # --- predictions

  @property
  def predictor(self) -> Predictor:
    begins = any(role in self.specials for role in ('start', 'end'))
    return Predictor(
      'tokens',
      self._predict_losses,
      _conclude,
      _token_rows,
      summary=_summary,
      # Without such an entry the first token of a text is predicted from nothing, as in evaluation.
      starts=self.document_start if begins else (),
    )

  def _predict_losses(
    self, variables: Variables, batch: Batch, keys: jax.Array
  ) -> dict[str, jax.Array]:
    """The `loss` in nats [B, R − 1] of each token but the first."""
    rows, logits = self._predict(variables, batch, keys)
    return {'loss': tokens.cross_entropy(logits, rows.targets)}

  # --- texts

  @property
  def sampler(self) -> TextSampler:
    return TextSampler(
      'tokens',
      self._sample,
      self._sampler_options(),
      start=self._start,
      advance=self._advance,
      context=self._context,
    )

  def _sampler_options(self) -> dict[str, Option]:
    bound = self._context or _LENGTH
    return {
      'prompt': Option(str, '', 'Beginning of every text; without it a text begins a document.'),
      'length': Option(
        int,
        None,
        f'Tokens of a text, its prompt included; {bound} if not given.',
        low=2,
        high=_MOST_TOKENS,
      ),
      **autoregressive.OPTIONS,
      'top_k': autoregressive.OPTIONS['top_k']._replace(high=self.vocabulary),
    }

  def _sample(
    self,
    variables: Variables,
    keys: jax.Array,
    numbers: jax.Array,
    prompt: Sequence[int],
    length: int | None,
    **options: float,
  ) -> jax.Array:
    """Texts int32 [B, length], the prompt first.

    Args:
      prompt: tokens that every text begins with; empty for the token `end`, after which a document
        begins, or token 0 where there is none.
      length: tokens of a text, prompt included; None for the context, or 256 without a bound.
      **options: those of `sampling.autoregressive`.
    """
    first = jnp.asarray(prompt or self.document_start, jnp.int32)
    prompts = jnp.broadcast_to(first, (*numbers.shape, first.shape[0]))
    lengths = jnp.full(numbers.shape, first.shape[0])
    length = length or self._context or _LENGTH
    state = self._start(variables, prompts, lengths, keys, length)
    return self._advance(variables, state, length, **options).tokens

  @property
  def document_start(self) -> tuple[int, ...]:
    """The tokens that a text without a prompt begins with."""
    return (self.specials.get('start', self.specials.get('end', 0)),)

  @property
  def _context(self) -> int:
    return self.modules['model'].context

  def _start(
    self, variables: Variables, prompts: jax.Array, lengths: jax.Array, keys: jax.Array, length: int
  ) -> autoregressive.DecodeState:
    if self._context and prompts.shape[1] > self._context:
      # Every token is a pass over the window, from the first on: no cache.
      carry, logits = None, self._window(variables, prompts, lengths)
    else:
      capacity = min(length, self._context or length)
      carry, logits = self._apply(variables, prompts, lengths, capacity, method='read')
    return autoregressive.start(carry, logits, prompts, lengths, keys, length)

  def _advance(self, variables: Variables, state: autoregressive.DecodeState, count, **options):
    def step(carry, tokens: jax.Array, positions: jax.Array):
      return self._apply(variables, carry, tokens, positions, method='step')

    def window(tokens: jax.Array, positions: jax.Array) -> jax.Array:
      return self._window(variables, tokens, positions)

    return autoregressive.advance(step, state, count, self._context, window, **options)

  def _window(self, variables: Variables, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """Logits [B, V] after the first `positions` tokens of each row, from the last it can see.

    The positions that the model gives to the tokens of a window start at 0, as in training.
    """
    size = min(self._context, tokens.shape[1])
    first = jnp.maximum(positions - size, 0)
    seen = jax.vmap(lambda row, at: jax.lax.dynamic_slice_in_dim(row, at, size))(tokens, first)
    logits = self._apply(variables, seen, train=False)
    last = (positions - first - 1)[:, None, None]
    return jnp.take_along_axis(logits, last, axis=1)[:, 0]

  def _apply(self, variables: Variables, *inputs, **options):
    return self.modules['model'].apply(variables['model'], *inputs, **options)

  # --- training

  def rows(self, batch: Batch, keys: jax.Array) -> Rows:
    del keys
    inputs, targets = self._inputs(batch['tokens']), batch['tokens'][:, 1:]
    segments = None
    if self.separate_documents:
      segments = jnp.cumsum(inputs == self.specials['end'], axis=1)
    # Padding comes after all that is real, so that a causal model does not see it anyway.
    return Rows(inputs, where_real(targets, batch['length'] - 1), None, segments)

  def _inputs(self, tokens: jax.Array) -> jax.Array:
    return tokens[:, :-1]

  def _token_losses(
    self, params: Params, mutable: Mutable, rows: Rows, context: Context
  ) -> tuple[jax.Array, Mapping[str, Any]]:
    if not self.loss_chunks:
      return super()._token_losses(params, mutable, rows, context)
    return self._apply_training(
      'model',
      params,
      mutable,
      rows.inputs,
      rows.targets,
      tokens.cross_entropy,
      self.loss_chunks,
      lengths=rows.lengths,
      segments=rows.segments,
      rngs=context.rngs,
      method='losses',
    )


def _conclude(means: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
  del batch
  return {'loss': means['loss']}


def _token_rows(values: Mapping[str, Any], legend: Legend) -> list[Row]:
  """A row for each token that is predicted, the end of the text among them."""
  return [
    {'token': token, 'loss': loss, 'probability': np.exp(-loss)}
    for token, loss in zip(legend.tokens[1:], values['loss'])
  ]


def _summary(columns: Mapping[str, np.ndarray]) -> str:
  loss = float(np.mean(columns['loss'], dtype=np.float64))
  number = len(columns['loss'])
  return f'{number:,} tokens, {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}'
