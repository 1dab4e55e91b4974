"""The sections of `config.data` that say how files of one's own are read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.image_files import CENTER, RESIZES
from data.own.names import CSV, FOLDER, NPZ, TEXT, own_files
from errors import UserError
from options import option

REFUSE, DROP, MEAN, MEDIAN = 'refuse', 'drop', 'mean', 'median'


@dataclasses.dataclass(frozen=True)
class Image:
  """The section `config.data.image`: how the pictures of folder: and npz: are brought to a size."""

  size: Sequence[int] = option(
    'Side in pixels, or height,width; () leaves pictures as they are, which must then have one '
    'size.',
    low=1,
    high=8192,
    default=(),
  )
  channels: int = option(
    '1 for gray, 3 for colour, 4 for colour with alpha; 0 for what the pictures have, which must '
    'then be the same for all.',
    low=0,
    high=4,
    default=0,
  )
  resize: str = option(
    '`center` scales until the size is covered and cuts off what stands over, `stretch` changes '
    "the picture's shape, `pad` scales until it fits and fills the rest with black.",
    choices=RESIZES,
    default=CENTER,
  )

  def __post_init__(self):
    if len(self.size) > 2:
      raise ValueError(f'size={_listed(self.size)} must be one side, or height,width')
    if self.channels == 2:
      raise ValueError('channels=2 must be 0, 1, 3 or 4')
    if self.resize != CENTER and not self.size:
      raise ValueError(
        f'resize={self.resize} has no effect without size; give one, or leave resize at {CENTER}'
      )

  @property
  def height_width(self) -> tuple[int, ...]:
    """(height, width), or () for the pictures' own size."""
    return tuple(self.size) * (2 // len(self.size)) if self.size else ()


@dataclasses.dataclass(frozen=True)
class Table:
  """The section `config.data.table`: how the columns of csv: are read."""

  target: str = option(
    'The column to predict: words are classes, numbers a regression, and a few whole numbers '
    'either, by config.objective.loss.',
    default='',
  )
  ignore: Sequence[str] = option('Columns that are no inputs.', default=())
  categories: Sequence[str] = option(
    'Columns whose numbers are names of categories; columns of words are categories anyway. A '
    'category is one input of 0 or 1 for each of its words.',
    default=(),
  )
  missing: str = option(
    'What is done about missing values of inputs: `refuse`, `drop` the row, or fill in the `mean` '
    'or `median` of the training rows (0 for every word of a category).',
    choices=(REFUSE, DROP, MEAN, MEDIAN),
    default=REFUSE,
  )


@dataclasses.dataclass(frozen=True)
class Jsonl:
  """The section `config.data.jsonl`: which values of a line of text: are read."""

  text: str = option('The key of the text.', default='text')
  label: str = option(
    "The key of the class; '' takes the first folder level, if there are folders.", default=''
  )

  def __post_init__(self):
    if self.label and self.label == self.text:
      raise ValueError(f'label={self.label} is the key of the text too; name another, or none')


class Own(NamedTuple):
  """How files of one's own are read.

  Attributes:
    image, table, jsonl: the sections of `config.data`.
    columns: columns of tables to keep as whole numbers too, `config.data.columns`.
  """

  image: Image = Image()
  table: Table = Table()
  jsonl: Jsonl = Jsonl()
  columns: Sequence[str] = ()

  def of(self, kind: str) -> dict[str, Any]:
    """Returns the options that what is read of files of a kind depends on, for a key."""
    sections = {
      key: dataclasses.asdict(getattr(self, key))
      for key, kinds in _SECTIONS.items()
      if kind in kinds
    }
    return {**sections, **({'columns': tuple(self.columns)} if kind == CSV else {})}


DEFAULTS = Own()
# The kinds of files that a section is for.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
  'image': (FOLDER, NPZ),
  'table': (CSV,),
  'jsonl': (TEXT,),
}


def check_effect(own: Own, names: Sequence[str]) -> None:
  """Raises UserError where a section is set that none of the data sets `names` reads."""
  used = {found[0] for found in map(own_files, names) if found}
  for key, kinds in _SECTIONS.items():
    section, default = getattr(own, key), getattr(DEFAULTS, key)
    for name, value in dataclasses.asdict(section).items():
      if value != getattr(default, name) and not used & {*kinds}:
        shown = _listed(value) if isinstance(value, tuple) else value
        raise UserError(
          f'config.data.{key}.{name}={shown} has no effect on {" and ".join(names)}, since it is '
          f'for {" and ".join(f"{kind}:PATH" for kind in kinds)}; leave it out, or choose such '
          'data with config.data.name'
        )


def _listed(values: Sequence[Any]) -> str:
  return ','.join(map(str, values))
