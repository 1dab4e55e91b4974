"""The flag --config: a config loaded, completed, and changed by the command line."""

import ast
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

import files
from commands import cli
from engine import run
from engine.build import keyword_options, resolve, to_plain
from errors import UserError

_DOC = 'The experiment: configs/NAME.py[:ARGUMENT]; --config.SECTION.OPTION=VALUE changes it.'


def define_config(argv: Sequence[str]) -> tuple[ConfigDict | None, Sequence[str]]:
  """Defines the flags of the config that --config names; for `cli.launch`.

  Returns:
    (the config before the overrides, the command line to parse); (None, argv) without --config.

  Raises:
    UserError: there is no such config, or a flag overrides what it lacks.
  """
  path = cli.value_of(argv, 'config')
  if path is None:
    return _without_path(argv)
  return _define(_load(path), path, argv)


def define_training_config(argv: Sequence[str]) -> tuple[ConfigDict | None, Sequence[str]]:
  """Likewise, for train.py: a run that has started needs its config's file no more.

  Without --config, the run in --workdir goes on with the config it was started with. It does so too
  where the config's file refuses because a run that it starts from has moved.

  Raises:
    UserError: likewise, or --workdir alone holds no run.
  """
  path = cli.value_of(argv, 'config')
  workdir = cli.value_of(argv, 'workdir')
  if path is None:
    if workdir is None or (cli.asks_for_help(argv) and not _holds_run(workdir)):
      return _without_path(argv)
    if not _holds_run(workdir):
      raise UserError(
        f'give --config too, e.g. --config=configs/gan.py, for --workdir={workdir} holds no run '
        'that could go on'
      )
    return _define(_stored(workdir), workdir, argv)
  try:
    config = _load(path)
  except UserError as error:
    workdir = workdir or cli.default_workdir(argv)
    if not _holds_run(workdir) or not _starts_from(_stored(workdir), path):
      raise
    print(f'stored   the config in {workdir} is used, since {error}', flush=True)
    config, path = _stored(workdir), workdir
  return _define(config, path, argv)


def _load(path: str) -> ConfigDict:
  config = cli.load(path)
  complete_init_from(config)
  return config


def _stored(workdir: str) -> ConfigDict:
  # Lists of JSON become tuples again, which flags can set.
  return ConfigDict(to_plain(run.read_config(workdir)))


def _holds_run(workdir: str) -> bool:
  return (files.path(workdir) / 'config.json').exists()


def _starts_from(config: ConfigDict, path: str) -> bool:
  """Whether a module of a stored config starts from the run that `configs/NAME.py:RUN` names."""
  file, _, source = path.partition(':')
  return files.path(file).is_file() and source in [entry.run for entry in config.init_from.values()]


def _without_path(argv: Sequence[str]) -> tuple[None, Sequence[str]]:
  """Defines --config for --help alone; see `define_config`."""
  if cli.asks_for_help(argv):
    flags.DEFINE_string('config', None, _DOC)
    cli.show_in_help('config', argv)
  return None, argv


def _define(config: ConfigDict, path: str, argv: Sequence[str]) -> tuple[ConfigDict, Sequence[str]]:
  words = _expand_init_from(_without_config(argv), config)
  original = config.copy_and_resolve_references()
  _add_new_options(config, words)
  cli.check_overrides(words, config, path)
  doc = '\n'.join([_DOC, f'Options of {path}, with their values:', *cli.list_options(config)])
  config_flags.DEFINE_config_dict('config', config, doc, sys_argv=list(words))
  flags.FLAGS['config'].default_as_str = ''  # The same again.
  cli.show_in_help('config', argv)
  return original, words


def complete_init_from(config: ConfigDict) -> None:
  """Gives every module of a config an entry in `config.init_from`, of no run; in place."""
  with config.unlocked():
    for module in config.modules:
      if module not in config.init_from:
        config.init_from[module] = dict(run='', module='', rules='.*=load', checkpoint='')


def _without_config(argv: Sequence[str]) -> list[str]:
  """The command line without --config=PATH or --config PATH."""
  words, skip = [], False
  for word in argv:
    if skip:
      skip = False
    elif word.lstrip('-') == 'config' and word.startswith('-'):
      skip = True
    elif not (word.startswith('-') and word.lstrip('-').startswith('config=')):
      words.append(word)
  return words


def _expand_init_from(argv: Sequence[str], config: ConfigDict) -> list[str]:
  """The command line with one flag for every module in place of --config.init_from=RUN."""
  words: list[str] = []
  for word in argv:
    name, equals, value = word.lstrip('-').partition('=')
    if name == 'config.init_from' and word.startswith('-') and equals:
      words += [f'--config.init_from.{module}.run={value}' for module in config.modules]
    else:
      words.append(word)
  return words


# --- replacing a named thing ----------------------------------------------------------------------

# The package that a `name` is looked up in, by the place of its section.
_ROOMS = {
  r'modules\.[^.]+': 'models',
  r'objective': 'objectives',
  r'evaluators\.[^.]+': 'engine.evaluators',
  r'evaluators\.[^.]+\.features': 'metrics.features',
  r'evaluators\.[^.]+\.metrics\.[^.]+': 'metrics',
}


def _add_new_options(config: ConfigDict, argv: Sequence[str]) -> None:
  """Adds the options that flags give to a thing that a flag names and the config's own lacks.

  `--config.optimizer.generator.name=sgd --config.optimizer.generator.momentum=0.9` sets an option
  that the config, written for Adam, does not have; in place.
  """
  given = cli.overrides(argv)
  for key, name in given.items():
    parent, _, last = key.rpartition('.')
    if last != 'name' or not cli.has_option(config, key):
      continue
    section = _at(config, parent)
    for option in _options_of(parent, name) or ():
      value = given.get(f'{parent}.{option}')
      if value is not None and option not in section:
        with config.unlocked():
          section[option] = _literal(value)


def _literal(text: str) -> Any:
  """A number, a truth value or a tuple as Python writes it; else the text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def drop_stale(config: ConfigDict, original: ConfigDict, overridden: Sequence[str]) -> None:
  """Deletes options that only the thing takes that a flag replaces by another, and names them.

  `--config.optimizer.generator.name=sgd` must not fail on the `b1` that the config gave to Adam.

  Args:
    config: after the flags; changed in place.
    original: before them.
    overridden: the keys that flags set.
  """
  for key in overridden:
    if not key.endswith('.name'):
      continue
    parent = key.removesuffix('.name')
    section, before = _at(config, parent), _at(original, parent)
    takes = _options_of(parent, section.name)
    if section.name == before.name or takes is None:
      continue
    stale = [k for k in section if k not in takes and f'{parent}.{k}' not in overridden]
    with config.unlocked():
      for option in stale:
        del section[option]
        print(f'dropped  config.{parent}.{option}: it belongs to {before.name}', file=sys.stderr)


def _at(config: ConfigDict, path: str) -> ConfigDict:
  for part in path.split('.'):
    config = config[part]
  return config


def _options_of(parent: str, name: str) -> set[str] | None:
  """The options that the thing `name` takes at this place; None where nothing is built of it."""
  section, *rest = parent.split('.')
  if section == 'optimizer' and len(rest) == 1:
    from engine import optimizers  # It imports jax, before which flags are parsed.

    own: Callable = optimizers.make_optimizer
    return keyword_options(optimizers.find(name, f'config.{parent}')) | keyword_options(own)
  for place, room in _ROOMS.items():
    if re.fullmatch(place, parent):
      return {'name', *keyword_options(resolve(name, room, f'config.{parent}.name'))}
  return None
