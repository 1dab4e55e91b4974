"""The flag --config: a config loaded, completed, and changed by the command line."""

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

import files
from commands import cli
from data.own.names import absolute_names
from errors import UserError

_DOC = 'The experiment: configs/NAME.py[:ARGUMENT]; --config.SECTION.OPTION=VALUE changes it.'


def define_config(argv: Sequence[str]) -> Sequence[str]:
  """Defines the flag of the config that --config names, changed by the command line.

  Returns:
    The rest of the command line; all of it without --config.

  Raises:
    UserError: there is no such config, or a flag overrides what it lacks.
  """
  path = cli.value_of(argv, 'config')
  if path is None:
    return _without_path(argv)
  return _define(_load(path), path, argv)


def define_training_config(argv: Sequence[str]) -> Sequence[str]:
  """Likewise, for train.py: a run that has started needs its config's file no more.

  Without --config, the run in --workdir goes on with the config it was started with. It does so too
  where the config's file refuses because a run that it starts from has moved.

  Raises:
    UserError: likewise, or --workdir alone holds no run.
  """
  path = cli.value_of(argv, 'config')
  workdir = cli.value_of(argv, 'workdir')
  if path is None and not cli.asks_for_help(argv):
    cli.check_flags(argv)
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
    print(f'stored   the config in {workdir} is used, since {error}', file=sys.stderr)
    config, path = _stored(workdir), workdir
  return _define(config, path, argv)


def _load(path: str) -> ConfigDict:
  config = cli.load(path)
  complete_init_from(config)
  return config


def _stored(workdir: str) -> ConfigDict:
  from engine.restore import stored_config  # It imports jax.

  return stored_config(workdir)


def _holds_run(workdir: str) -> bool:
  return (files.path(workdir) / 'config.json').exists()


def _starts_from(config: ConfigDict, path: str) -> bool:
  """Whether a module of a stored config starts from the run that `configs/NAME.py:RUN` names."""
  file, _, source = path.partition(':')
  return files.path(file).is_file() and source in [entry.run for entry in config.init_from.values()]


def _without_path(argv: Sequence[str]) -> Sequence[str]:
  """Defines --config for --help alone; see `define_config`."""
  if cli.asks_for_help(argv):
    flags.DEFINE_string('config', None, _DOC)
    cli.show_in_help('config', argv)
  return argv


def _define(config: ConfigDict, path: str, argv: Sequence[str]) -> Sequence[str]:
  from commands import overrides  # It imports jax, for which `cli.launch` prepares the process.

  words = _expand_init_from(_without_config(argv), config)
  rest = overrides.define(config, words, path, _DOC)
  _check_test_split(config, words)
  complete_paths(config)
  return rest


def _check_test_split(config: ConfigDict, words: Sequence[str]) -> None:
  """Raises UserError for a flag of the test split with folds; a config has one in either case."""
  if 'data.test_split' in cli.overrides(words) and config.data.folds:
    raise UserError(
      f'--config.data.test_split={config.data.test_split} has no effect with config.data.folds='
      f'{config.data.folds}: the fold that is held out is evaluated on; leave the flag out'
    )


def complete_paths(config: ConfigDict) -> None:
  """Makes the paths of files of one's own absolute: a run may go on from another folder; in place.

  Raises:
    UserError: KIND: is followed by no path.
  """
  data = config.get('data', {})  # a config that lacks sections is refused later
  for key in ('name', 'test_name'):
    if isinstance(data.get(key), str):
      data[key] = absolute_names(data[key])


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
  rest = [*argv]
  while rest:
    word = rest.pop(0)
    name, equals, value = word.lstrip('-').partition('=')
    if name == 'config.init_from' and word.startswith('-') and (equals or rest):
      value = value if equals else rest.pop(0)
      words += [f'--config.init_from.{module}.run={value}' for module in config.modules]
    else:
      words.append(word)
  return words
