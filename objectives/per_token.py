"""The parent of objectives that predict one class at every token: one module, one player."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from losses import tokens
from objectives.base import Aux, Batch, Context, Mutable, Objective, Params, Player, Variables


class Rows(NamedTuple):
  """The model's inputs and targets of a batch.

  Attributes:
    inputs: int32 [B, T].
    targets: int32 [B, T], the class at each token; -1 where there is none to predict.
    lengths: int32 [B], real tokens; None where the padding cannot be seen.
    segments: int32 [B, T]: tokens of different segments do not see each other; None for one.
  """

  inputs: jax.Array
  targets: jax.Array
  lengths: jax.Array | None
  segments: jax.Array | None


@dataclasses.dataclass(frozen=True)
class PerToken(Objective):
  """Module `model` (tokens [B, T], train, lengths, segments) -> logits [B, T, outputs].

  The loss is the mean over all targets of the batch, also where it is cut into microbatches.
  """

  # --- what differs

  @abc.abstractmethod
  def rows(self, batch: Batch, keys: jax.Array) -> Rows:
    """Returns inputs and targets of a batch; what is random in them comes from `keys` [B]."""

  def _inputs(self, tokens: jax.Array) -> jax.Array:
    """The part of the rows int32 [B, R] that the model reads."""
    return tokens

  # --- what the engine asks for

  @property
  def players(self) -> tuple[Player, ...]:
    return (Player('model', ('model',), self._train_loss),)

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    if 'tokens' not in batch:
      raise UserError(
        f'this objective reads text, and the data has only {", ".join(sorted(batch))}; choose a '
        'data set with text and fill in config.data.text'
      )
    inputs = self._inputs(batch['tokens'][:1])
    return {'model': self.modules['model'].init(key, inputs, train=False)}

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """Means over the targets of each row, and their number as `weight`."""
    rows, logits = self._predict(variables, batch, keys)
    return self._figures(rows, logits)

  # --- small parts

  def _train_loss(self, params, mutable, batch: Batch, context: Context):
    rows = self.rows(batch, context.keys)
    losses, changed = self._token_losses(params, mutable, rows, context)
    real = rows.targets >= 0
    weight = real.sum().astype(jnp.float32)
    return tokens.mean(losses, real), Aux({}, {'model': changed}, weight)

  def _token_losses(
    self, params: Params, mutable: Mutable, rows: Rows, context: Context
  ) -> tuple[jax.Array, Mapping[str, Any]]:
    """The training loss of each token, float32 [B, T], and the model's changed collections."""
    logits, changed = self._apply_training(
      'model',
      params,
      mutable,
      rows.inputs,
      lengths=rows.lengths,
      segments=rows.segments,
      rngs=context.rngs,
    )
    return tokens.cross_entropy(logits, rows.targets), changed

  def _predict(self, variables: Variables, batch: Batch, keys: jax.Array) -> tuple[Rows, jax.Array]:
    rows = self.rows(batch, keys)
    logits = self._outputs(
      'model', variables, rows.inputs, lengths=rows.lengths, segments=rows.segments
    )
    return rows, logits

  def _probabilities(
    self, variables: Variables, batch: Batch, keys: jax.Array
  ) -> dict[str, jax.Array]:
    """`probability` [B, T, outputs] at each token of texts that are given without targets."""
    del keys
    logits = self._outputs(
      'model', variables, batch['tokens'], lengths=batch['length'], segments=None
    )
    return {'probability': jax.nn.softmax(logits.astype(jnp.float32))}

  @staticmethod
  def _figures(rows: Rows, logits: jax.Array) -> dict[str, jax.Array]:
    real = rows.targets >= 0
    hits = (logits.argmax(axis=-1) == rows.targets).astype(jnp.float32)
    return {
      'loss': tokens.mean(tokens.cross_entropy(logits, rows.targets), real, axis=-1),
      'accuracy': tokens.mean(hits, real, axis=-1),
      'weight': real.sum(axis=-1).astype(jnp.float32),
    }


def where_real(values: jax.Array, lengths: jax.Array) -> jax.Array:
  """Returns `values` int32 [B, T] with -1 from position `lengths` [B] of each row on."""
  return jnp.where(jnp.arange(values.shape[1]) < lengths[:, None], values, -1)


def perplexity(loss: float) -> float:
  """exp of a loss in nats; infinite where that is no float."""
  with np.errstate(over='ignore'):
    return float(np.exp(loss))


def require_text(name: str, vocabulary: int) -> None:
  """Raises UserError where the data has no text, so no vocabulary."""
  if not vocabulary:
    raise UserError(
      f'config.objective.name={name} reads text, and the data set gives none; choose one with text '
      'and fill in config.data.text'
    )
