"""Options of a config given on the command line: --config.SECTION.OPTION=VALUE."""

import ast
import dataclasses
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from commands import cli
from engine import declarations
from engine.build import to_plain
from errors import UserError, nearest
from options import REQUIRED, Option

_WIDTH = 100
_PREFIX = 'config.'


class ConfigFlag(flags.Flag):
  """The flag --config of a config that the command line has changed.

  Attributes:
    keys: of the options that it gave.
    listing: of all options, for --help.
  """

  def __init__(self, config: ConfigDict, keys: Sequence[str], doc: str, listing: str):
    super().__init__(flags.ArgumentParser(), None, 'config', None, doc)
    self.value, self.keys, self.listing = config, keys, listing
    self.default_as_str = ''

  def parse(self, argument: str) -> None:
    raise flags.IllegalFlagValueError(
      f'--config={argument} has no effect here; give --config.SECTION.OPTION=VALUE'
    )


def define(config: ConfigDict, argv: Sequence[str], path: str, doc: str) -> list[str]:
  """Changes a config by the options on the command line and defines the flag --config for it.

  Args:
    config: changed in place.
    argv: the command line, without --config=PATH.
    path: where the config comes from, for messages.
    doc: of the flag.

  Returns:
    The rest of the command line.

  Raises:
    UserError: an option is unknown, of another type or out of range.
  """
  keys, rest = override(config, argv, path)
  listing = ''
  if cli.asks_for_help(argv):
    listing = '\n'.join([f'Options of {path}, with their values:', '', *listed(config)])
  flags.DEFINE_flag(ConfigFlag(config, keys, doc, listing))
  cli.show_in_help('config', argv)
  return rest


def override(
  config: ConfigDict, argv: Sequence[str], path: str
) -> tuple[tuple[str, ...], list[str]]:
  """Changes a config by the options on the command line; of one given twice the last one counts.

  A thing that a flag names (`--config.optimizer.model.name=sgd`) takes options of its own, which
  other flags may give; those of the config's own thing that it does not take are dropped. A section
  of things by names of one's own, such as the metrics of an evaluator, takes further ones.

  Returns:
    (the keys that were given, the rest of the command line).

  Raises:
    UserError: an option is unknown, of another type or out of range.
  """
  added = _add_entries(config, argv)
  blank = [place for place in ('data.text',) if _node(config, place) == ConfigDict()]
  _rename(config, argv, path)
  given: dict[str, Any] = {}
  rest, words = [*argv[:1]], [*argv[1:]]
  while words:
    word = words.pop(0)
    key, text = _split(word)
    if key is None:
      rest.append(word)
      continue
    option = _find(config, key, path)
    if text is None:
      text = 'true' if option.type is bool else _value_of(key, words)
    given[key] = _parsed(text, option, f'--{_PREFIX}{key}')
  for key, value in given.items():
    parent, _, last = key.rpartition('.')
    with config.unlocked(), config.ignore_type():
      _at(config, parent)[last] = value
  for place in added:
    _check_whole(config, place, path)
  for place in blank:
    _check_filled(config, place, path, given)
  return tuple(given), rest


def _split(word: str) -> tuple[str | None, str | None]:
  """(key, value) of --config.KEY=VALUE; None for no value, or no key; --noconfig.KEY is false."""
  name, equals, text = word.lstrip('-').partition('=')
  if not word.startswith('-'):
    return None, None
  if name.startswith(f'no{_PREFIX}') and not equals:
    return name.removeprefix(f'no{_PREFIX}'), 'false'
  if not name.startswith(_PREFIX):
    return None, None
  return name.removeprefix(_PREFIX), text if equals else None


def _value_of(key: str, words: list[str]) -> str:
  """Takes the value of --config.KEY VALUE off the words that follow."""
  if not words or words[0].startswith('--'):
    raise UserError(f'--{_PREFIX}{key} has no value; write --{_PREFIX}{key}=VALUE')
  return words.pop(0)


# --- adding a section -----------------------------------------------------------------------------


def _add_entries(config: ConfigDict, argv: Sequence[str]) -> list[str]:
  """Adds the sections that flags describe and the config lacks, still empty; returns their places.

  A section is described where its `name` is given, or where it has none, all that it must have:
  whoever misspells the name of a section gives one option of it.
  """
  given, added = cli.overrides(argv), []
  places = {key[: dot.start()] for key in given for dot in re.finditer(r'\.', key)}
  # Outer sections first.
  for place in sorted(places, key=lambda each: each.count('.')):
    outer, _, last = place.rpartition('.')
    node = _node(config, outer)
    if not isinstance(node, ConfigDict) or not last or not declarations.is_section(place):
      continue
    name = given.get(f'{place}.name')
    options = {key.rpartition('.')[2] for key in given if key.rpartition('.')[0] == place}
    with config.unlocked(), config.ignore_type():
      if last not in node and declarations.required(place) <= options:
        node[last] = ConfigDict()
        added.append(place)
      if declarations.is_group(place):  # It has entries, and no name.
        continue
      section = node.get(last)
      if name is not None and isinstance(section, ConfigDict) and section.get('name') is None:
        section.name = name
  return added


def _check_whole(config: ConfigDict, place: str, path: str) -> None:
  """Raises UserError where a section that flags added lacks an option: its name may be wrong."""
  section = _at(config, place)
  taken = declarations.options_at(place, to_plain(section))
  options = taken.options if taken is not None else {}
  required = [key for key, option in options.items() if option.default is REQUIRED]
  missing = [f'--{_PREFIX}{place}.{key}' for key in required if key not in section]
  if missing:
    outer, _, last = place.rpartition('.')
    others = [key for key in _at(config, outer) if key != last]
    raise UserError(
      f'{path} has no section {_PREFIX}{place}{nearest(last, others)}; {_PREFIX}{outer} has: '
      f'{", ".join(others) or "none"}; a new one needs {", ".join(missing)} too'
    )


def _node(config: ConfigDict, place: str) -> Any:
  """The value at a place of a config; None if there is none."""
  node: Any = config
  for part in place.split('.') if place else ():
    if not isinstance(node, ConfigDict) or part not in node:
      return None
    node = node[part]
  return node


def _check_filled(config: ConfigDict, place: str, path: str, given: Mapping[str, Any]) -> None:
  """Raises UserError where flags give a section that is {} in the config some of its options."""
  section = _at(config, place)
  if section and declarations.required(place) - {*section}:
    key = next(key for key in given if key.startswith(f'{place}.'))
    raise UserError(
      f'--{_PREFIX}{key} has no effect: {_PREFIX}{place} is empty in {path}, which reads none; '
      'leave it out, or start from a config that has that section'
    )


# --- replacing a named thing ----------------------------------------------------------------------


def _rename(config: ConfigDict, argv: Sequence[str], path: str) -> None:
  """Sets the names that flags give, and drops options that only the thing of before takes."""
  overridden = cli.overrides(argv)
  for key, name in overridden.items():
    parent, _, last = key.rpartition('.')
    if last != 'name' or not declarations.is_named(parent):
      continue
    _find(config, key, path)
    section = _at(config, parent)
    before, section.name = section.name, name
    if before == name:
      continue
    taken = declarations.options_at(parent, to_plain(section))
    if not taken.complete:
      continue
    with config.unlocked():
      for option in [k for k in section if k not in taken.options]:
        if f'{parent}.{option}' not in overridden:
          del section[option]
          print(f'dropped  {_PREFIX}{parent}.{option}: it belongs to {before}', file=sys.stderr)


# --- finding an option ----------------------------------------------------------------------------


def _at(config: ConfigDict, place: str) -> Any:
  node: Any = config
  for part in place.split('.') if place else ():
    node = node[part]
  return node


def _find(config: ConfigDict, key: str, path: str) -> Option:
  """The declaration of the option at a key, which the config has or the section's thing takes.

  Raises:
    UserError: there is none.
  """
  *parents, last = key.split('.')
  node, walked = config, 'config'
  for part in parents:
    if part not in node:
      raise _unknown(path, walked, part, node)
    node, walked = node[part], f'{walked}.{part}'
    if not isinstance(node, ConfigDict):
      if declarations.is_section(walked.removeprefix(_PREFIX)):
        raise UserError(f'{walked}={node} must be a section of options')
      if isinstance(node, (tuple, list)):
        shown = ','.join(map(str, node))
        raise UserError(f'--{walked} is set as a whole, such as --{walked}={shown}')
      raise UserError(f'--{walked} in {path} is a value and has no "{last}" below it')
  if isinstance(node.get(last), ConfigDict):
    inside = ', '.join(f'--{_PREFIX}{key}.{k}' for k in node[last]) or 'none of its options is set'
    raise UserError(f'--{_PREFIX}{key} is a section; set one of: {inside}')
  options = _options_of(config, '.'.join(parents))
  if last in options and (options[last].doc or last not in node):
    return options[last]
  if last not in node:
    raise _unknown(path, walked, last, {**dict.fromkeys(node), **options})
  return _undeclared(node[last])


def _options_of(config: ConfigDict, place: str) -> Mapping[str, Option]:
  """The options that can be set in the section at a place."""
  if not place:
    return {name: option for name, option in declarations.RUN.items() if name in config}
  taken = declarations.options_at(place, to_plain(_at(config, place)))
  if taken is not None:
    return taken.settable
  # A mapping from names to values is a section of the config, and takes any name.
  outer, _, last = place.rpartition('.')
  mapping = _options_of(config, outer).get(last) if outer else None
  return _AnyName(mapping) if mapping is not None and mapping.each == 'mapping' else {}


@dataclasses.dataclass(frozen=True)
class _AnyName(Mapping[str, Option]):
  """The options of a section that is a mapping from any names to values."""

  mapping: Option

  def __getitem__(self, name: str) -> Option:
    return self.mapping._replace(each='')

  def __contains__(self, name: object) -> bool:
    return True

  def __iter__(self):
    return iter(())

  def __len__(self) -> int:
    return 0


def _undeclared(value: Any) -> Option:
  """The declaration that follows from the value of an option that has none."""
  if isinstance(value, (tuple, list)):
    return Option(object, None, '', each='list')
  plain = type(value) if isinstance(value, (bool, int, float, str)) else object
  return Option(plain, None, '')


def _unknown(path: str, walked: str, name: str, known: Mapping[str, Any]) -> UserError:
  return UserError(
    f'{path} has no option --{walked}.{name}{nearest(name, known)}; '
    f'{walked} has: {", ".join(sorted(known)) or "none"}'
  )


# --- reading a value ------------------------------------------------------------------------------


def _parsed(text: str, option: Option, where: str) -> Any:
  """The value that a text stands for, checked."""
  if text == 'None' and option.default is None:
    return None
  if option.each == 'list':
    if re.search(r',\s*,|^\s*,', text):
      raise UserError(f'{where}={text} has an empty place between its commas; write it as a,b')
    value: Any = _list(text, option.type)
  elif option.each == 'mapping' or option.type is Mapping:
    value = _literal(text)
  else:
    value = _one(text, option.type)
  if not option.doc:
    # The type of an undeclared option is that of its value; its range is known where it is read.
    option = option._replace(default=None)
  return option.check(value, where)


def _one(text: str, type_: type) -> Any:
  """One value of a type; the text itself where it is none, which the check then names."""
  if type_ is str:
    return text
  if type_ is bool:
    return {'true': True, '1': True, 'false': False, '0': False}.get(text.lower(), text)
  if type_ in (int, float):
    try:
      return type_(text)
    except ValueError:
      return text
  return _literal(text)


def _list(text: str, type_: type) -> tuple[Any, ...]:
  """The values of `a,b`, or of a list as Python writes it; none of an empty text."""
  text = text.strip()
  if re.match(r'[(\[\'"]', text):
    value = _literal(text)
    if isinstance(value, (list, tuple)):
      return tuple(value)
    if value != text:
      return (value,)
  return tuple(_one(part.strip(), type_) for part in text.split(',') if part.strip())


def _literal(text: str) -> Any:
  """A number, a truth value or a list as Python writes it; else the text."""
  try:
    return ast.literal_eval(text.capitalize() if text in ('true', 'false') else text)
  except (ValueError, SyntaxError):
    return text


# --- listing options ------------------------------------------------------------------------------


def listed(config: ConfigDict) -> list[str]:
  """Returns every option as it is written on the command line, with its meaning and range.

  Options that a thing takes and the config does not give come after those that it gives.
  """
  return _listed(config, '')


def _listed(config: ConfigDict, place: str) -> list[str]:
  node, lines = _at(config, place), []
  try:
    options = _options_of(config, place)
  except UserError as error:
    return [f'--{_PREFIX}{place}: {error}']
  for key, value in node.items():
    inner = f'{place}.{key}' if place else key
    if isinstance(value, ConfigDict):
      lines += _listed(config, inner)
    else:
      option = options[key] if key in options else _undeclared(value)
      lines += _lines(f'--{_PREFIX}{inner}={value}', option)
  for key, option in options.items():
    if key not in node and option.doc and option.default is not REQUIRED:
      lines += _lines(f'--{_PREFIX}{place}.{key} ({option.default} if not given)', option)
  return lines


def _lines(first: str, option: Option) -> list[str]:
  if not option.doc:
    return [first]
  text = ' '.join([option.doc, describe(option)]).strip()
  return [first, *textwrap.wrap(text, _WIDTH, initial_indent='    ', subsequent_indent='    ')]


def describe(option: Option) -> str:
  """Returns the kind and range of an option as a sentence; '' where any text will do."""
  if option.choices and not option.each:
    return f'O{option.allowed[1:]}.'
  if option.type in (object, str) and not option.each:
    return ''
  kind = option.kind[:1].upper() + option.kind[1:]
  return f'{kind}, {option.allowed}.' if option.allowed else f'{kind}.'
