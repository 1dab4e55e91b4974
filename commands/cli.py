"""What the root scripts share: strict flags, and errors as one sentence with exit code 2."""

import itertools
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from logging import CRITICAL, getLogger
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict

import files
from engine import runtime
from errors import UserError, nearest

# command line -> the command line to parse, without what is read already
Define = Callable[[Sequence[str]], Sequence[str]]

DISTRIBUTED = (
  'This is one process of several. They find each other by themselves on TPU pods and Slurm, else '
  'through JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.'
)


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
  and that of its signal; anything else keeps its traceback.
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
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print(f'\nstopped; {lost}', file=sys.stderr)
    sys.exit(130)
  except BrokenPipeError:
    if not _reader_left():
      raise
    # As `head` leaves it; nothing more can be said there, not even at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print('stopped: the program that read the output has ended', file=sys.stderr)
    sys.exit(128 + signal.SIGPIPE)


def join_processes(distributed: bool) -> None:
  """Joins the processes of one job where the flag --distributed is given, before jax is used.

  Raises:
    UserError: they cannot be found.
  """
  if distributed:
    from engine import distributed as processes

    processes.join()


def _reader_left() -> bool:
  """Whether standard output is a pipe that nobody reads any more."""
  watch = select.poll()
  watch.register(sys.stdout.fileno(), 0)
  return any(event & select.POLLERR for _, event in watch.poll(0))


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses all flags; returns the words that belong to none."""
  if asks_for_help(argv):
    listing = getattr(flags.FLAGS['config'], 'listing', '') if 'config' in flags.FLAGS else ''
    print(sys.modules['__main__'].__doc__, flags.FLAGS.module_help(argv[0]), listing, sep='\n')
    sys.exit(0)
  try:
    rest = flags.FLAGS(list(argv))
  except flags.UnrecognizedFlagError as error:
    known = [f'--{flag.name}' for flag in flags.FLAGS.get_key_flags_for_module(argv[0])]
    raise UserError(
      f'there is no flag --{error.flagname}{nearest("--" + error.flagname, known)}; there are: '
      f'{", ".join(sorted(known))}'
    ) from None
  except flags.Error as error:
    raise UserError(f'{_first_line(error)}; --help lists the flags') from None
  return rest[1:]


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0]


def overrides(argv: Sequence[str]) -> dict[str, str]:
  """Returns the values of all `--config.KEY=VALUE` and `--config.KEY VALUE`, as text, by key."""
  given = {}
  for word, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=''):
    name, equals, value = word.lstrip('-').partition('=')
    if word.startswith('-') and name.startswith('config.'):
      given[name.removeprefix('config.')] = value if equals else following
  return given


def asks_for_help(argv: Sequence[str]) -> bool:
  return any(word in ('--help', '-help', '-h') for word in argv[1:])


def show_in_help(flag: str, argv: Sequence[str]) -> None:
  """Lists a flag that another file than the script defined among those that --help shows."""
  flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS[flag])


def value_of(argv: Sequence[str], flag: str) -> str | None:
  """Returns the value of a flag on a command line that is not parsed yet, None if not given."""
  for i, word in enumerate(argv[1:], 1):
    name, equals, value = word.lstrip('-').partition('=')
    if word.startswith('-') and name == flag:
      return value if equals else (argv[i + 1] if i + 1 < len(argv) else '')
  return None


def load(path: str) -> ConfigDict:
  """Loads `configs/NAME.py[:ARGUMENT]`.

  Raises:
    UserError: there is no such file, it refused the argument, or what it made is no config.
  """
  file, _, argument = path.partition(':')
  file = str(files.path(file))
  if not Path(file).is_file():
    known = [str(p) for p in sorted(Path(__file__).parents[1].glob('configs/*.py'))
             if p.name not in ('__init__.py', 'defaults.py')]  # fmt: skip
    shown = [os.path.relpath(p) for p in known]
    raise UserError(
      f'there is no config {file}{nearest(file, shown)}; there are: {", ".join(shown)}'
    )
  import importlib.util

  location = importlib.util.spec_from_file_location(f'config_{Path(file).stem}', file)
  module = importlib.util.module_from_spec(location)
  location.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(f'{file} is no config: it defines no get_config(); see configs/gan.py')
  config = module.get_config(argument) if argument else module.get_config()
  from engine.declarations import check_sections  # It imports jax.

  try:
    check_sections(config)
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  return config


def default_workdir(argv: Sequence[str]) -> str:
  """runs/NAME for configs/NAME.py, runs/NAME-ARGUMENT with an argument."""
  file, _, argument = (value_of(argv, 'config') or '').partition(':')
  return f'runs/{Path(file).stem}' + (f'-{argument}' if argument else '')
