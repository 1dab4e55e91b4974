"""What objectives share that predict one class at every token: one module, one player."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from losses import tokens
from objectives.base import Aux, Batch, Drawing, Player, Variables


class Rows(NamedTuple):
  """What the model sees of a batch, and what it should say.

  Attributes:
    inputs: int32 [B, T].
    targets: int32 [B, T], the class at each token; -1 where nothing is to be said.
    lengths: int32 [B], real tokens; None where the padding cannot be seen.
    segments: int32 [B, T]: tokens of different segments do not see each other; None for one.
  """

  inputs: jax.Array
  targets: jax.Array
  lengths: jax.Array | None
  segments: jax.Array | None


@dataclasses.dataclass(frozen=True)
class PerToken:
  """Module `model` (tokens [B, T], train, lengths, segments) -> logits [B, T, outputs].

  A loss is the mean over all targets of the batch. With accumulation it is the mean of the
  microbatches' means, which is the same where they have equally many targets.

  Attributes:
    modules: the module, built.
  """

  modules: Mapping[str, nn.Module]

  # --- what differs

  def rows(self, batch: Batch, key: jax.Array) -> Rows:
    """What the model sees of a batch, and what it should say; `key` is for what is drawn."""
    raise NotImplementedError

  def _inputs(self, tokens: jax.Array) -> jax.Array:
    """What the model sees of rows int32 [B, R], by its shape."""
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

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Means over the targets of each row, and their number as `weight`."""
    rows, logits = self._predicted(variables, batch, key)
    return self._figures(rows, logits)

  def measure(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Nothing: all figures are cheap."""
    del variables, batch, key
    return {}

  # Nothing to draw from, but of a language model.
  sample = None

  @property
  def drawings(self) -> Mapping[str, Drawing]:
    return {}

  # --- small parts

  def _train_loss(self, params, mutable, batch: Batch, key: jax.Array):
    draw_key, dropout_key = jax.random.split(key)
    rows = self.rows(batch, draw_key)
    logits, changed = self._apply(
      {'params': params['model'], **mutable['model']},
      rows,
      train=True,
      mutable=list(mutable['model']),
      # Folded: microbatches share the key, and must not drop the same.
      rngs={'dropout': jax.random.fold_in(dropout_key, batch['position'][0])},
    )
    losses = tokens.cross_entropy(logits, rows.targets)
    return tokens.mean(losses, rows.targets >= 0), Aux({}, {'model': changed})

  def _predicted(
    self, variables: Variables, batch: Batch, key: jax.Array
  ) -> tuple[Rows, jax.Array]:
    rows = self.rows(batch, key)
    return rows, self._apply(variables['model'], rows, train=False)

  def _apply(self, variables: Variables, rows: Rows, **options):
    return self.modules['model'].apply(
      variables, rows.inputs, lengths=rows.lengths, segments=rows.segments, **options
    )

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
  """`values` int32 [B, T], with -1 from the place `lengths` [B] of each row on."""
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
