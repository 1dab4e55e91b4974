"""What the root scripts share: strict flags, and errors as one sentence with exit code 2."""

import inspect
import itertools
import math
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from logging import CRITICAL, getLogger
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict

import files
from engine import runtime
from errors import UserError, nearest

# command line -> the command line to parse, without what is read already
Define = Callable[[Sequence[str]], Sequence[str]]

DISTRIBUTED = (
  'This is one process of several. They find each other by themselves on TPU pods, under Slurm and '
  'from python -m tools.launch, else through JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and '
  'JAX_PROCESS_ID.'
)
JOIN_TIMEOUT = 'Seconds to wait for the other processes of --distributed.'
DEFAULT_JOIN_TIMEOUT = 300.0


def launch(
  main: Callable[..., None],
  argv: Sequence[str],
  lost: str = 'nothing was written',
  define: Define | None = None,
  takes_words: bool = False,
) -> None:
  """Parses flags, prepares the process, runs `main`, and leaves with its exit code.

  Args:
    main: what the script does.
    argv: the command line.
    lost: the words for a person who stops it with Ctrl-C.
    define: defines, given `argv`, the flags that depend on it; see `Define`.
    takes_words: whether `main` takes the words that belong to no flag, as a list.

  UserError and bad flags end in one sentence and code 2, a pipe that nobody reads any more in one
  and that of its signal; anything else keeps its traceback. Where this is one process of several,
  the others are told, and end too.
  """
  try:
    # Libraries log the traceback of what they then raise.
    logging.set_verbosity(logging.FATAL)
    # And asyncio that of every read and write of Orbax that failed after the first one.
    getLogger('asyncio').setLevel(CRITICAL)
    runtime.prepare()
    rest = _parse(define(argv) if define else argv)
    if rest and not takes_words:
      raise UserError(
        f'unexpected argument "{rest[0]}"; options look like --config.train.steps=300'
      )
    main(*([rest] if takes_words else []))
  except UserError as error:
    _stop(f'error: {error}', str(error), 2)
  except KeyboardInterrupt:
    _stop(f'\nstopped; {lost}', 'it was stopped by Ctrl-C', 128 + signal.SIGINT)
  except Exception as error:
    if isinstance(error, BrokenPipeError) and _reader_left():
      # As `head` leaves it; nothing more can be said there, not even at exit.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      reason = 'the program that read the output has ended'
      _stop(f'stopped: {reason}', reason, 128 + signal.SIGPIPE)
    known = isinstance(error, (RuntimeError, AssertionError, ValueError))
    told = runtime.device_error(error) if known else None
    if told is not None:
      _stop(f'error: {told}', told, 2)
    joined = _joined()
    if joined is not None:
      joined.explain(error)
    raise


def _stop(line: str, reason: str, code: int) -> NoReturn:
  """Ends the script with a line on stderr and an exit code; other processes of its job hear why."""
  print(line, file=sys.stderr)
  joined = _joined()
  if joined is not None:
    joined.leave(reason, code)
  sys.exit(code)


def _joined() -> Any:
  """The module `engine.distributed` where this script has joined others; it imports jax."""
  return sys.modules.get('engine.distributed')


def join_processes(saves: bool, options: Mapping[str, Any]) -> None:
  """Joins the processes of one job where the flag --distributed is given, before jax is used.

  Args:
    saves: whether SIGTERM is to be noted for a training loop; else it ends the process.
    options: what must be the same in all processes, of JSON.

  Raises:
    UserError: they cannot be found, some are missing or differ, or --join_timeout has no effect.
  """
  values = flags.FLAGS
  patience = values.join_timeout
  if not values.distributed:
    if values['join_timeout'].present:
      raise UserError(
        f'--join_timeout={patience:g} has no effect without --distributed; leave it out'
      )
    return
  if not 0 < patience < math.inf:
    raise UserError(f'--join_timeout={patience:g} must be a number of seconds above 0')
  from engine import distributed as processes

  processes.join(patience, saves, options)


def _reader_left() -> bool:
  """Whether standard output is a pipe that nobody reads any more."""
  watch = select.poll()
  watch.register(sys.stdout.fileno(), 0)
  return any(event & select.POLLERR for _, event in watch.poll(0))


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses all flags; returns the words that belong to none."""
  if asks_for_help(argv):
    listing = getattr(flags.FLAGS['config'], 'listing', '') if 'config' in flags.FLAGS else ''
    # Above the flags absl names the file, by its whole path where it is a module.
    own = flags.FLAGS.module_help(argv[0]).lstrip().partition('\n')[2]
    print(sys.modules['__main__'].__doc__, f'Flags:\n{own}' if own else '', listing, sep='\n')
    sys.exit(0)
  try:
    rest = flags.FLAGS(list(argv))
  except flags.UnrecognizedFlagError as error:
    raise _unknown_flag(error.flagname, argv) from None
  except flags.IllegalFlagValueError as error:
    raise UserError(_illegal_value(error)) from None
  except flags.Error as error:
    raise UserError(f'{_first_line(error)}; --help lists the flags') from None
  return rest[1:]


def check_flags(argv: Sequence[str]) -> None:
  """Raises UserError for a flag that is neither --config nor one that is defined already.

  For a command line without --config: a slip in that word is to be named.
  """
  for word in argv[1:]:
    name = word.lstrip('-').partition('=')[0]
    known = (name, name.removeprefix('no'))
    if word == '--':
      return
    if word.startswith('-') and name and not name.startswith(('config.', 'noconfig.')):
      if not any(each in flags.FLAGS for each in known):
        raise _unknown_flag(name, argv, ['--config'])


def _unknown_flag(name: str, argv: Sequence[str], more: Sequence[str] = ()) -> UserError:
  """The sentence for a flag that is neither defined by the script nor one of `more`."""
  if name in ('help', 'nohelp'):
    return UserError('--help takes no value; write it alone, or leave it out')
  defined = [f'--{flag.name}' for flag in flags.FLAGS.get_key_flags_for_module(argv[0])]
  known = sorted({*defined, *more})
  config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
  # What stands at the end of a place in the config is meant by it.
  places = [place for place in _places(config) if place.endswith(f'.{name}')]
  meant = f' (did you mean "--{places[0]}"?)' if places else nearest(f'--{name}', known)
  return UserError(f'there is no flag --{name}{meant}; there are: {", ".join(known)}')


def _places(config: object, place: str = 'config') -> list[str]:
  """The options of a config as flags name them, those of the upper sections first."""
  if not isinstance(config, ConfigDict):
    return []
  sections = [key for key, value in config.items() if isinstance(value, ConfigDict)]
  inner = [each for key in sections for each in _places(config[key], f'{place}.{key}')]
  return [*(f'{place}.{key}' for key in config if key not in sections), *inner]


def _illegal_value(error: Exception) -> str:
  """The message for a value that a flag's parser refused, absl's own where it is no type's."""
  text = _first_line(error)
  # absl shows some messages as a tuple.
  found = re.fullmatch(r"flag (--\S+): \('(.*)', .*\)", text)
  if found:
    return f'{found[1]}: {found[2]}; --help lists the flags'
  shown = re.match(r'flag (--(\w+)=.*?): ', text, re.DOTALL)
  if shown and shown[2] in flags.FLAGS:
    kind = _KINDS.get(flags.FLAGS[shown[2]].flag_type())
    if kind:
      return f'{shown[1]} must be {kind}'
  return f'{text}; --help lists the flags'


# What absl calls the types of flags, in words.
_KINDS = {'int': 'a whole number', 'float': 'a number', 'bool': 'true or false'}


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or ['without a reason'])[0].rstrip('.')


def overrides(argv: Sequence[str]) -> dict[str, str]:
  """Returns the values of all `--config.KEY=VALUE` and `--config.KEY VALUE`, as text, by key."""
  given = {}
  for word, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=''):
    name, equals, value = word.lstrip('-').partition('=')
    if word.startswith('-') and name.startswith('config.'):
      given[name.removeprefix('config.')] = value if equals else following
  return given


def asks_for_help(argv: Sequence[str]) -> bool:
  return any(re.fullmatch(r'--?help(full|short)?|-h', word) for word in argv[1:])


def show_in_help(flag: str, argv: Sequence[str]) -> None:
  """Lists a flag that another file than the script defined among those that --help shows."""
  flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS[flag])


def value_of(argv: Sequence[str], flag: str) -> str | None:
  """Returns the value of a flag on a command line that is not parsed yet, None if not given.

  Of one given twice the last one counts, as when it is parsed.
  """
  found = None
  for i, word in enumerate(argv[1:], 1):
    name, equals, value = word.lstrip('-').partition('=')
    if word.startswith('-') and name == flag:
      found = value if equals else (argv[i + 1] if i + 1 < len(argv) else '')
  return found


def load(path: str) -> ConfigDict:
  """Loads `configs/NAME.py[:ARGUMENT]`.

  Raises:
    UserError: there is no such file, it refused the argument, or what it made is no config.
  """
  given, _, argument = path.partition(':')
  file = str(files.path(given)) if given else ''
  if not Path(file).is_file():
    known = [p for p in sorted(Path(__file__).parents[1].glob('configs/*.py'))
             if p.name not in ('__init__.py', 'defaults.py')]  # fmt: skip
    shown = {p.stem: os.path.relpath(p) for p in known}
    meant = shown.get(given)
    near = f' (did you mean "{meant}"?)' if meant else nearest(file, shown.values())
    raise UserError(
      f'there is no config --config={path}{near}; there are: {", ".join(shown.values())}'
    )
  if Path(file).suffix != '.py':
    raise UserError(f'--config={path} is no file of Python (.py); see configs/gan.py')
  config = _run_config(file, argument)
  from engine.declarations import check_sections  # It imports jax.

  try:
    check_sections(config)
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  return config


def _run_config(file: str, argument: str) -> Any:
  """Returns the result of `get_config` in a config file.

  Raises:
    UserError: it has none, or takes no such argument, or what it does failed: with the file and the
      line.
  """
  import importlib.util

  location = importlib.util.spec_from_file_location(f'config_{Path(file).stem}', file)
  module = importlib.util.module_from_spec(location)
  try:
    location.loader.exec_module(module)
  except UserError:
    raise
  except Exception as error:
    raise _failed(file, error) from error
  function = getattr(module, 'get_config', None)
  if not callable(function):
    raise UserError(f'{file} is no config: it defines no get_config(); see configs/gan.py')
  given = [argument] if argument else []
  try:
    inspect.signature(function).bind(*given)
  except TypeError:
    shown = f'--config={file}:{argument} gives it one' if given else f'--config={file} gives none'
    raise UserError(
      f'get_config{inspect.signature(function)} in {file} does not take the arguments that it is '
      f'given: {shown}; it can have one with a default, as in configs/gan.py'
    ) from None
  try:
    return function(*given)
  except UserError:
    raise
  except Exception as error:
    raise _failed(file, error) from error


def _failed(file: str, error: Exception) -> UserError:
  """The sentence for what a config's own code raised, with the last of its lines."""
  if isinstance(error, SyntaxError) and error.filename is not None:
    return UserError(f'{error.filename}, line {error.lineno}: {error.msg}; mend the config')
  lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
  where = f'{file}, line {lines[-1].lineno}' if lines else file
  innermost = traceback.extract_tb(error.__traceback__)[-1]
  inside = Path(innermost.filename).parts
  # Where it called something else, which is told too unless it is a library.
  if lines and innermost.filename != file and 'site-packages' not in inside:
    if Path(innermost.filename).is_file():
      where += f' (through {innermost.filename}, line {innermost.lineno})'
  return UserError(f'{where}: {type(error).__name__}: {_first_line(error)}; mend the config')


def default_workdir(argv: Sequence[str]) -> str:
  """runs/NAME for configs/NAME.py, runs/NAME-ARGUMENT with an argument."""
  file, _, argument = (value_of(argv, 'config') or '').partition(':')
  return f'runs/{Path(file).stem}' + (f'-{argument}' if argument else '')
