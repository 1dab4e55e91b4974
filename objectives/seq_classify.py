"""Classification of whole texts, or regression of a number that goes with each."""

import dataclasses

from errors import UserError
from objectives.base import Batch, Variables
from objectives.classify import Classify


@dataclasses.dataclass(frozen=True)
class SeqClassify(Classify):
  """A `Classify` whose module `model` is (tokens [B, T], train, lengths [B]) -> [B, outputs].

  Attributes:
    input: always `tokens`.
    pool: what the module reads the outputs from: the `first` token (BERT's class token), the `last`
      real one, or the `mean` of the real ones.
  """

  input: str = dataclasses.field(init=False, default='tokens')
  pool: str

  def __post_init__(self):
    if self.pool == 'none':
      raise UserError(
        'config.objective.pool=none gives outputs for every token; choose how a text is read as a '
        'whole, or use config.objective.name=tag'
      )
    super().__post_init__()
    self._configure('model', pool=self.pool)

  def _apply(self, variables: Variables, batch: Batch, **options):
    return self.modules['model'].apply(
      variables, batch['tokens'], lengths=batch['length'], **options
    )
