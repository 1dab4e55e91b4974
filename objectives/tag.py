"""Token tagging: of which kind each token is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from errors import UserError
from objectives.base import Batch, Legend, Predictor, Row, Variables
from objectives.per_token import PerToken, Rows, where_real
from objectives.rankings import conclude_class, of_classes, top_option


@dataclasses.dataclass(frozen=True)
class Tag(PerToken):
  """Module `model` as in `PerToken`; its fields `outputs` and `pool` are set from here.

  A token without a kind, such as padding or the end of a document, is left out everywhere.

  Attributes:
    num_classes: kinds there are, given by the data.
  """

  num_classes: int

  def __post_init__(self):
    if self.num_classes < 2:
      raise UserError(
        'config.objective.name=tag needs data that says the kind of each token, such as '
        'python_stdlib with config.data.text.kinds=True'
      )
    self._configure('model', outputs=self.num_classes, pool='none')

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    variables = super().init(key, batch)
    if 'kind' not in batch:
      raise UserError(
        f'the data has no "kind" of each token, only {", ".join(sorted(batch))}; set '
        'config.data.text.kinds=True'
      )
    return variables

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """Means over the tokens of each row that have a kind, their number as `weight`, and of every
    token `prediction` int32 [B, T] and `label` int32 [B, T], -1 where it has none."""
    rows, logits = self._predict(variables, batch, keys)
    prediction = logits.argmax(axis=-1).astype(jnp.int32)
    return {**self._figures(rows, logits), 'prediction': prediction, 'label': rows.targets}

  def rows(self, batch: Batch, keys: jax.Array) -> Rows:
    del keys
    length = batch['length']
    return Rows(batch['tokens'], where_real(batch['kind'], length), length, None)

  @property
  def predictor(self) -> Predictor:
    options = {'top': top_option(2, 'kinds of a token')}
    return Predictor('tokens', self._probabilities, conclude_class, _token_rows, options)


def _token_rows(values: Mapping[str, Any], legend: Legend, top: int) -> list[Row]:
  """A row for each token of the text; special entries have no kind."""
  return [
    {'token': token, **of_classes('kind', probability, legend.class_names, top, legend.whole)}
    for token, ordinary, probability in zip(legend.tokens, legend.ordinary, values['probability'])
    if ordinary
  ]
