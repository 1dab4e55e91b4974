"""The flag --config: a config loaded, completed, and changed by the command line."""

import re
import sys
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

import files
from commands import cli
from engine import run
from engine.build import keyword_options, resolve
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
    return None, argv
  return _define(cli.load(path), path, argv)


def define_training_config(argv: Sequence[str]) -> tuple[ConfigDict | None, Sequence[str]]:
  """Likewise, for train.py: a run that has started needs its config's file no more.

  Without --config, the run in --workdir goes on with the config it was started with. It does so too
  where the config's file refuses, e.g. because a run that it starts from has moved.
  """
  path = cli.value_of(argv, 'config')
  workdir = cli.value_of(argv, 'workdir')
  if path is None:
    if workdir is None or not (files.path(workdir) / 'config.json').exists():
      return None, argv
    return _define(_stored(workdir), workdir, argv)
  try:
    config = cli.load(path)
  except UserError as error:
    workdir = workdir or cli.default_workdir(argv)
    if not (files.path(workdir) / 'config.json').exists():
      raise
    print(f'stored   the config in {workdir} is used, since {error}', flush=True)
    config, path = _stored(workdir), workdir
  return _define(config, path, argv)


def _stored(workdir: str) -> ConfigDict:
  return ConfigDict(run.read_config(workdir))


def _define(config: ConfigDict, path: str, argv: Sequence[str]) -> tuple[ConfigDict, Sequence[str]]:
  complete_init_from(config)
  words = [word for given in _without_config(argv) for word in _expanded(given, config)]
  cli.check_overrides(words, config, path)
  original = config.copy_and_resolve_references()
  config_flags.DEFINE_config_dict('config', config, _DOC, sys_argv=list(words))
  flags.FLAGS['config'].default_as_str = ''  # The whole config, which --help would print.
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


def _expanded(word: str, config: ConfigDict) -> list[str]:
  """--config.init_from=RUN as one flag for every module; other words as they are."""
  name, equals, value = word.lstrip('-').partition('=')
  if name != 'config.init_from' or not equals:
    return [word]
  return [f'--config.init_from.{module}.run={value}' for module in config.modules]


# --- replacing a named thing ----------------------------------------------------------------------

# The package that a `name` is looked up in, by the place of its section.
_ROOMS = {
  r'modules\.[^.]+': 'models',
  r'objective': 'objectives',
  r'evaluators\.[^.]+': 'engine.evaluators',
  r'evaluators\.[^.]+\.features': 'metrics.features',
  r'evaluators\.[^.]+\.metrics\.[^.]+': 'metrics',
}


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
