"""Options by their place in a config: read by flags, checks, `--help` and docs/options.md.

A section is a fixed one (`train`), a thing that its `name` names (`modules.model`), or a group of
either by names of one's own (`ema`). Whoever builds a thing from its section declares its options.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from data import transforms
from data.own.options import Image, Jsonl, Table
from data.section import Data
from data.text.options import Text
from engine import optimizers
from engine.averages import Average
from engine.build import keyword_options, name_of, resolve, to_plain
from engine.checkpoint import Kept
from engine.init_rules import Source
from engine.optimizer_options import SCHEDULE
from engine.sharding import Sizes, check_rules
from engine.tracking import Reported
from engine.train_options import Train
from errors import UserError, nearest
from options import REQUIRED, Option, declared_options

# The options outside of all sections.
RUN: Mapping[str, Option] = {
  'seeds': Option(
    int,
    REQUIRED,
    'How many seeds are trained side by side, from config.train.seed on.',
    low=1,
    high=10_000,
  ),
  'sharding': Option(
    object,
    REQUIRED,
    'Rules (regex, axes), of which a parameter follows the first that is found in its path: it is '
    'split over these axes of the mesh, or, where one is given without parentheses, the largest '
    'axis that divides is split over it, unless the parameter has fewer than 1,024 elements.',
    each='list',
  ),
  'profile': Option(bool, REQUIRED, 'Whether a trace of a few dispatches is written.'),
}
# The sections of a config; those of `_GROUPS` hold sections by names of one's own.
SECTIONS = (
  'objective', 'modules', 'optimizer', 'ema', 'data', 'train', 'checkpoint', 'evaluators', 'report',
  'mesh', 'init_from',
)  # fmt: skip
_ENTRY = r'[^.]+'
_GROUPS = (
  'modules',
  'optimizer',
  'ema',
  'evaluators',
  'init_from',
  rf'evaluators\.{_ENTRY}\.metrics',
)

# The options of sections that have no name, by the place of the section.
FIXED: Mapping[str, Mapping[str, Option]] = {
  'data': declared_options(Data),
  r'data\.text': declared_options(Text),
  r'data\.augment': transforms.OPTIONS,
  r'data\.image': declared_options(Image),
  r'data\.table': declared_options(Table),
  r'data\.jsonl': declared_options(Jsonl),
  'train': declared_options(Train),
  'checkpoint': declared_options(Kept),
  'report': declared_options(Reported),
  'mesh': declared_options(Sizes),
  rf'ema\.{_ENTRY}': declared_options(Average),
  rf'init_from\.{_ENTRY}': declared_options(Source),
  rf'optimizer\.{_ENTRY}\.schedule': SCHEDULE,
}

# The package that a `name` is looked up in, by the place of its section.
ROOMS: Mapping[str, str] = {
  rf'modules\.{_ENTRY}': 'models',
  'objective': 'objectives',
  rf'evaluators\.{_ENTRY}': 'engine.evaluators',
  rf'evaluators\.{_ENTRY}\.features': 'metrics.features',
  rf'evaluators\.{_ENTRY}\.metrics\.{_ENTRY}': 'metrics',
  r'train\.gradient': 'engine',
}
_OPTIMIZER = rf'optimizer\.{_ENTRY}'
_NAME = Option(str, REQUIRED, 'What is built, as FILE.Class.')


class Taken(NamedTuple):
  """The options that a section of a config takes.

  Attributes:
    options: by name; of type `object` where a keyword is not declared.
    complete: whether it takes no other.
  """

  options: Mapping[str, Option]
  complete: bool = True

  @property
  def settable(self) -> Mapping[str, Option]:
    """The options that a person may add; all keywords where the thing declares none of them."""
    declared = {name: option for name, option in self.options.items() if option.doc}
    return declared if {*declared} - {'name'} else self.options


def options_at(place: str, section: Any) -> Taken | None:
  """Returns what the section at a place takes; None where nothing is built of it.

  Args:
    place: e.g. 'optimizer.model.schedule'.
    section: its values, as plain dicts.

  Raises:
    UserError: the section's `name` is missing, or names nothing.
  """
  where = f'config.{place}'
  if not place:
    return Taken(RUN, complete=False)
  for pattern, options in FIXED.items():
    if re.fullmatch(pattern, place):
      return Taken(options)
  if re.fullmatch(_OPTIMIZER, place):
    return Taken(optimizers.section_options(section, where))
  for pattern, room in ROOMS.items():
    if re.fullmatch(pattern, place):
      target = resolve(name_of(section, where), room, f'{where}.name')
      return _taken_by(target)
  return None


def _taken_by(target: Callable) -> Taken:
  declared = declared_options(target)
  # A keyword without a declaration may be one that the engine fills in.
  others = {key: Option(object, None, '') for key in keyword_options(target) - {*declared, 'name'}}
  kinds = {parameter.kind for parameter in inspect.signature(target).parameters.values()}
  return Taken({'name': _NAME, **declared, **others}, inspect.Parameter.VAR_KEYWORD not in kinds)


def is_group(place: str) -> bool:
  """Whether a section holds others by names of one's own."""
  return any(re.fullmatch(pattern, place) for pattern in _GROUPS)


def is_named(place: str) -> bool:
  """Whether the `name` in a section says what takes the section's other options."""
  return any(re.fullmatch(pattern, place) for pattern in (*ROOMS, _OPTIMIZER))


def is_section(place: str) -> bool:
  """Whether a place holds a section, not a value."""
  known = (*FIXED, *ROOMS, *_GROUPS, _OPTIMIZER)
  return any(re.fullmatch(pattern, place) for pattern in known)


def required(place: str) -> set[str]:
  """Returns the options that a section must have, known before its other ones: for many `name`."""
  if is_named(place):
    return {'name'}
  for pattern, options in FIXED.items():
    if re.fullmatch(pattern, place):
      return {name for name, option in options.items() if option.default is REQUIRED}
  return set()


def check_sections(config: Any) -> None:
  """Checks that a config has the sections of `SECTIONS` and the options of `RUN`, and no others.

  Raises:
    UserError: it is no config, a section is unknown or missing, or it is none.
  """
  if not isinstance(config, ConfigDict):
    found = 'None' if config is None else f'a {type(config).__name__}'
    raise UserError(
      f'get_config() returned {found}, and must return an ml_collections.ConfigDict; start from '
      'the one that configs/defaults.py makes'
    )
  known = (*SECTIONS, *RUN)
  for key in config:
    if key not in known:
      raise UserError(
        f'config.{key} is no section{nearest(key, known)}; there are: {", ".join(known)}'
      )
  for key in known:
    if key not in config:
      raise UserError(f'the config has no section "{key}"; start it from configs/defaults.py')
  for key in SECTIONS:
    if not isinstance(config[key], ConfigDict):
      raise UserError(f'config.{key}={config[key]} must be a section of options')


def check_config(config: ConfigDict) -> None:
  """Checks all options of a config that are declared, before anything is opened.

  Raises:
    UserError: a section or an option is unknown, missing, of another type or out of range.
  """
  check_sections(config)
  for name, option in RUN.items():
    option.check(to_plain(config[name]), f'config.{name}')
  check_rules(to_plain(config.sharding))
  for section in SECTIONS:
    check_section(section, to_plain(config[section]))


def check_section(place: str, section: Any) -> None:
  """Checks a section, given as plain dicts, and those in it; `place` is e.g. 'evaluators'.

  Raises:
    UserError: as `check_config`.
  """
  where = f'config.{place}'
  if not isinstance(section, Mapping):
    raise UserError(f'{where}={section} must be a section of options')
  if is_group(place):
    for name, entry in section.items():
      # Figures and parameters are told apart by what stands before their first slash.
      if not re.fullmatch(r'[\w-]+', name):
        raise UserError(
          f'{where} has an entry called "{name}"; call it something of letters, digits, _ and -'
        )
      check_section(f'{place}.{name}', entry)
    return
  taken = options_at(place, section)
  if taken is None or (place == 'data.text' and not section):
    return
  for name, option in taken.options.items():
    if name in section:
      option.check(section[name], f'{where}.{name}')
    elif option.default is REQUIRED:
      raise UserError(f'{where}.{name} is missing; it must be {option.kind}: {option.doc}')
  for name, value in section.items():
    if taken.complete and name not in taken.options:
      known = taken.settable
      raise UserError(
        f'{where} has no option "{name}"{nearest(name, known)}; it takes: '
        f'{", ".join(sorted(known))}'
      )
    if is_section(f'{place}.{name}'):
      check_section(f'{place}.{name}', value)
