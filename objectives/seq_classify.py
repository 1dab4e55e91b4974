"""Classification of whole texts, or regression of a number that goes with each."""

import dataclasses

from objectives.base import Batch, Variables
from objectives.classify import Classify
from options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeqClassify(Classify):
  """A `Classify` whose module `model` is (tokens [B, T], train, lengths [B]) -> [B, outputs].

  Attributes:
    input: always `tokens`.
  """

  input: str = dataclasses.field(init=False, default='tokens')
  pool: str = option(
    "What the module reads the outputs from: the `first` token (BERT's class token), the `last` "
    'real one, or the `mean` of the real ones.',
    choices=('first', 'last', 'mean'),
  )

  def __post_init__(self):
    super().__post_init__()
    self._configure('model', pool=self.pool)

  def _apply(self, variables: Variables, batch: Batch, **options):
    return self.modules['model'].apply(
      variables, batch['tokens'], lengths=batch['length'], **options
    )
