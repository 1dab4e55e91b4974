"""Changes every option of every config to something odd: a run starts, or one sentence refuses it.

  python -m benchmarks.fuzz_configs --seed=0 --mutants=10000
  python -m benchmarks.fuzz_configs --seed=0 --mutants=2000 --configs=gan,gpt --seconds=60

A mutant is a config of ours with one change of `KINDS` at one place. What `train.py` does before it
allocates anything (`engine.preflight`) is done with it: the config is checked, data opened, modules
built, and a step, the evaluations and the sampler traced. Right are two answers: it is accepted, or
a UserError names the key. All others count as wrong:

- another exception, running out of memory, or more than `--limit` seconds
- a UserError that does not name the key
- an accepted number that no option allows: nan, an infinity, a negative one that is not declared

The mutants follow from the seed; whether a size passes the check of memory depends on the machine.
Exits with 1 if any answer is wrong, and prints how to get each one again.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import math
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[1]
# Configs whose data sets are not always there, with an argument for which they are.
ARGUMENTS = {'synthetic': 'real'}
# What makes a config quick to trace without another kind of program.
SMALL = {'layers': 1, 'context': 32}
# Memory in bytes that a mutant may take beyond what the process has.
ROOM = 8 * 2**30
# Most characters of a message.
LONGEST = 2200
# Mutants of one config in a row where there is no time for all of them.
_BLOCK = 10


class Gone:
  """The value of a key that is taken away."""

  def __repr__(self) -> str:
    return 'Gone'


GONE = Gone()


@dataclasses.dataclass(frozen=True)
class Added:
  """A value for a key that the config does not have.

  Attributes:
    key: the key, beside that of the place.
    value: its value.
  """

  key: str
  value: Any


class Mutant(NamedTuple):
  """One change of one config.

  Attributes:
    config: the config's name.
    kind: of the change, a key of `KINDS`.
    place: of the value that is changed, e.g. 'train.steps'.
    value: the new value, `GONE` or `Added`.
  """

  config: str
  kind: str
  place: str
  value: Any

  @property
  def key(self) -> str:
    """The place that an answer must name."""
    if isinstance(self.value, Added):
      return f'{self.place.rpartition(".")[0]}.{self.value.key}'.lstrip('.')
    return self.place


class Answer(NamedTuple):
  """The verdict on one mutant.

  Attributes:
    mutant: the mutant.
    verdict: 'accepted', 'refused' or what is wrong.
    told: the message of the error; '' for none.
    seconds: that it took.
  """

  mutant: Mutant
  verdict: str
  told: str
  seconds: float

  @property
  def right(self) -> bool:
    return self.verdict in ('accepted', 'refused')


# --- changes --------------------------------------------------------------------------------------

# `(value before, random) -> the values to choose from`; none where the kind does not apply.
Change = Callable[[Any, random.Random], Sequence[Any]]


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(*values: Any) -> Change:
  """Puts a number in the place of one, or of one entry of a list of them."""

  def change(before: Any, draw: random.Random) -> Sequence[Any]:
    if _is_number(before):
      return values
    if isinstance(before, tuple) and before and all(map(_is_number, before)):
      at = draw.randrange(len(before))
      return [(*before[:at], value, *before[at + 1 :]) for value in values]
    return ()

  return change


def _words(*values: str) -> Change:
  """Puts a word in the place of one, or of one entry of a list of them."""

  def change(before: Any, draw: random.Random) -> Sequence[Any]:
    if isinstance(before, str):
      return values
    if isinstance(before, tuple) and before and all(isinstance(one, str) for one in before):
      at = draw.randrange(len(before))
      return [(*before[:at], value, *before[at + 1 :]) for value in values]
    return ()

  return change


def _anything(*values: Any) -> Change:
  return lambda before, draw: [value for value in values if not _same(value, before)]


def _same(one: Any, other: Any) -> bool:
  return type(one) is type(other) and repr(one) == repr(other)


def _of_another_type(before: Any, draw: random.Random) -> Sequence[Any]:
  del draw
  values = (3, 0.5, 'three', (3,), ('three',), b'three', {3}, range(3))
  kinds = (int, float) if _is_number(before) else (type(before),)
  return [value for value in values if not isinstance(value, kinds)]


def _opposite(before: Any, draw: random.Random) -> Sequence[Any]:
  del draw
  if _is_number(before):
    return [-before] if before else []
  if isinstance(before, tuple) and before and all(map(_is_number, before)):
    return [tuple(-one for one in before)]
  return ()


def _fraction(before: Any, draw: random.Random) -> Sequence[Any]:
  return _numbers(0.5, 1.5, 2.0000001)(before, draw) if not isinstance(before, float) else ()


def _numpy(before: Any, draw: random.Random) -> Sequence[Any]:
  import numpy as np

  del draw
  if isinstance(before, bool):
    return [np.bool_(before)]
  if isinstance(before, int):
    return [np.int64(before), np.float32(before), np.array(before), np.array([before])]
  if isinstance(before, float):
    return [np.float32(before), np.float64(before), np.array(before), np.float64('nan')]
  if isinstance(before, str):
    return [np.str_(before), np.array([before])]
  flat = isinstance(before, tuple) and before and not any(isinstance(x, tuple) for x in before)
  return [np.array(before)] if flat else []


def _bool(before: Any, draw: random.Random) -> Sequence[Any]:
  del draw
  if isinstance(before, bool):
    return [0, 1, 'True', 1.0, not before]
  return [True, False] if _is_number(before) else []


def _long(before: Any, draw: random.Random) -> Sequence[Any]:
  del draw
  if isinstance(before, tuple):
    entry = before[0] if before else 1
    return [(entry,) * number for number in (65, 10_000)]
  return [(before,) * 10_000] if _is_number(before) or isinstance(before, str) else []


def _nested(before: Any, draw: random.Random) -> Sequence[Any]:
  del draw
  return [[before], (before,), [[before]], ((before, before), before)]


def _close(before: Any, draw: random.Random) -> Sequence[Any]:
  """A slip of the keyboard in a word."""
  if not isinstance(before, str) or len(before) < 2:
    return ()
  at = draw.randrange(len(before) - 1)
  swapped = before[:at] + before[at + 1] + before[at] + before[at + 2 :]
  return [text for text in (swapped, before[:-1], before + 'x', f' {before}', before.upper())]


def _added(before: Any, draw: random.Random) -> Sequence[Any]:
  del before, draw
  return [Added('unknown_key', 1), Added('Größe', 2), Added('name_', 'x'), Added('steps_', None)]


KINDS: Mapping[str, Change] = {
  'another type': _of_another_type,
  'sign': _opposite,
  'negative': _numbers(-1, -3, -0.5, -(10**9)),
  'zero': _numbers(0, 0.0, -0.0),
  'small': _numbers(1, 2, 3, 5, 7, 1e-30, 1e-300),
  'large': _numbers(300, 12_345, 10**6),
  'huge': _numbers(10**9, 2**31, 2**32, 2**63, 10**18, 10**40, 1e30, 1e308),
  'not finite': _numbers(math.nan, math.inf, -math.inf),
  'fraction': _fraction,
  'empty': _anything('', (), {}, []),
  'none': _anything(None),
  'unknown word': _words('unknown', 'no.such', 'a/b', '.', '..', '*', '(', 'None', 'x' * 5000),
  'slip': _close,
  'unicode': _words('größe', '数', '\x00', '\n', '🙂', 'a\u0301', '\ud800'),
  'list': _nested,
  'long list': _long,
  'section': _anything({'a': 1}, {'name': 'mlp'}, {'': ''}),
  'missing': _anything(GONE),
  'added': _added,
  'numpy': _numpy,
  'bool': _bool,
}
# Beside these, which need the other places of all configs:
ELSEWHERE = ('value of another option', 'name of another kind', 'option of another optimizer')


def _leaves(section: Mapping[str, Any], above: str = '') -> Iterator[tuple[str, Any]]:
  """Every value of a config and every section in it, with its place."""
  for key, value in section.items():
    place = f'{above}{key}'
    yield place, value
    if isinstance(value, dict):
      yield from _leaves(value, f'{place}.')


def mutants(configs: Mapping[str, Mapping[str, Any]], seed: int, number: int) -> list[Mutant]:
  """Returns so many changes of configs, in the order of the configs; a function of the seed.

  Args:
    configs: as plain dicts, by name.
    seed: of the choice.
    number: how many.
  """
  draw = random.Random(seed)
  leaves = {name: [*_leaves(config)] for name, config in configs.items()}
  values = [value for each in leaves.values() for _, value in each if not isinstance(value, dict)]
  names = sorted(
    {value for each in leaves.values() for place, value in each if _last(place) == 'name'}
  )
  found: list[Mutant] = []
  while len(found) < number:
    name = draw.choice([*configs])
    place, value = draw.choice(leaves[name])
    kind = draw.choice([*KINDS, *ELSEWHERE])
    if kind == 'value of another option':
      choices: Sequence[Any] = [draw.choice(values)]
    elif kind == 'name of another kind':
      choices = [draw.choice(names)] if _last(place) == 'name' else []
    elif kind == 'option of another optimizer':
      keys = ('momentum', 'eps', 'b1', 'nesterov', 'rho', 'hidden', 'samples', 'seed', 'split')
      odd = (-1, 0.5, math.nan, 'x', None, (), True, 10**9)
      choices = [Added(draw.choice(keys), draw.choice(odd))]
    else:
      choices = KINDS[kind](value, draw)
    if choices:
      found.append(Mutant(name, kind, place, draw.choice(choices)))
  order = [*configs]
  return sorted(found, key=lambda mutant: order.index(mutant.config))


def _last(place: str) -> str:
  return place.rpartition('.')[2]


def mutated(config: Any, mutant: Mutant) -> Any:
  """Returns a copy of a config with the change."""
  from ml_collections import ConfigDict

  # From a plain one, as a person writes it: a ConfigDict would convert the value to the old type.
  changed = config.to_dict()
  section, _, last = mutant.place.rpartition('.')
  node, value = _section(changed, section), mutant.value
  if value is GONE:
    del node[last]
  elif isinstance(value, Added):
    node[value.key] = value.value
  else:
    node[last] = value
  return ConfigDict(changed)


# --- answers --------------------------------------------------------------------------------------


class TooSlow(BaseException):
  """A mutant took longer than it may; no handler of errors catches it."""


@contextmanager
def limits(seconds: int) -> Iterator[None]:
  """Within it, `TooSlow` is raised after so many seconds, and MemoryError beyond `ROOM`."""

  def stop(*_: Any) -> None:
    raise TooSlow

  size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  before = resource.getrlimit(resource.RLIMIT_AS)
  handler = signal.signal(signal.SIGALRM, stop)
  resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, before[1]))
  # Again and again, for what is raised within a callback of Python's own is lost.
  signal.setitimer(signal.ITIMER_REAL, seconds, 1)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def opened_once() -> Iterator[None]:
  """Within it, a data set, a tokenizer and an encoded text are opened once for all that ask."""
  from data import section
  from data.text import encoded

  with (
    mock.patch.object(section, 'open_source', _kept(section.open_source)),
    mock.patch.object(encoded, 'train_tokenizer', _kept(encoded.train_tokenizer)),
    mock.patch.object(encoded, 'encode', _kept(encoded.encode)),
  ):
    yield


def _kept(function: Callable) -> Callable:
  made: dict[str, tuple[Any, Any]] = {}

  def call(*arguments: Any, **options: Any) -> Any:
    key = repr((arguments, options))
    if key not in made:
      # With the arguments, so that an address in their text stays theirs.
      made[key] = function(*arguments, **options), arguments
    return made[key][0]

  return call


def answer(config: Any, mutant: Mutant, workdir: str, limit: int = 10) -> Answer:
  """Returns what the start of a run says to a mutant."""
  from engine.build import to_plain
  from engine.preflight import preflight
  from errors import UserError

  started = time.perf_counter()
  told = ''
  try:
    changed = mutated(config, mutant)
    with limits(limit):
      preflight(changed, workdir)
      json.dumps(to_plain(changed))  # as the run's folder keeps it
    verdict = _senseless(changed, mutant) or 'accepted'
  except UserError as error:
    told = str(error)
    verdict = 'refused' if names_key(told, mutant) else 'UserError without the key'
    verdict = verdict if len(told) < LONGEST else 'UserError that nobody reads to its end'
  except TooSlow as error:
    verdict = f'over {limit} s at {_line(error)}'
  except Exception as error:
    told = f'{type(error).__name__}: {error}'
    verdict = f'{type(error).__name__} at {_line(error)}'
  return Answer(mutant, verdict, told, time.perf_counter() - started)


def names_key(told: str, mutant: Mutant) -> bool:
  """Whether a message names the key of a mutant: its whole place, or its section and its name.

  The `name` of a section, the first or the last key of a group of sections, is named by the place
  of the section, and a section that is changed by any option in it.
  """
  section, _, last = mutant.key.rpartition('.')
  if re.search(rf'config\.{re.escape(mutant.key)}(?!\w)', told):
    return True
  if not section:
    return f'config.{last}' in told or f'"{last}"' in told
  if f'config.{section}' not in told:
    return False
  return last == 'name' or bool(re.search(rf'(?<!\w){re.escape(last)}(?!\w)', told))


def _senseless(config: Any, mutant: Mutant) -> str:
  """Why a mutant should not have been accepted; '' if it may be."""
  from engine.build import to_plain
  from engine.declarations import options_at

  value = mutant.value.value if isinstance(mutant.value, Added) else mutant.value
  values = [one for one in (value if isinstance(value, (tuple, list)) else [value])]
  numbers = [one for one in values if _is_number(one)]
  if any(not math.isfinite(one) for one in numbers if isinstance(one, float)):
    return 'accepted a number that is not finite'
  if not any(one < 0 for one in numbers):
    return ''
  section, _, last = mutant.key.rpartition('.')
  taken = options_at(section, _section(to_plain(config), section))
  also = taken.options[last].also if taken and last in taken.options else ()
  return '' if all(one in also for one in numbers if one < 0) else 'accepted a negative number'


def _section(config: Mapping[str, Any], place: str) -> Any:
  node: Any = config
  for part in place.split('.') if place else ():
    node = node[part]
  return node


def _line(error: BaseException) -> str:
  """The innermost line of the project that an error passed."""
  frames = [
    frame
    for frame in traceback.extract_tb(error.__traceback__)
    if Path(frame.filename).is_relative_to(ROOT)
    and 'site-packages' not in frame.filename
    and Path(frame.filename) != Path(__file__)
  ]
  if not frames:
    return 'no line of ours'
  return f'{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}'


# --- configs --------------------------------------------------------------------------------------


def names() -> list[str]:
  """The configs that can be mutated: all but the defaults, and the one that needs a run."""
  stems = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
  return [stem for stem in stems if stem not in ('__init__', 'defaults', 'finetune')]


def load(name: str) -> Any:
  """Returns a config as `train.py` starts with it, of few layers."""
  from commands import cli, config_flags

  argument = f':{ARGUMENTS[name]}' if name in ARGUMENTS else ''
  config = cli.load(f'{ROOT}/configs/{name}.py{argument}')
  config_flags.complete_init_from(config)
  model = config.modules.get('model', {})
  for key, value in SMALL.items():
    if key in model:
      model[key] = value
  if 'length' in config.data.text:
    config.data.text.length = 32
  return config


def run(
  chosen: Sequence[str],
  seed: int,
  number: int,
  seconds: float = math.inf,
  limit: int = 10,
  say: Callable[[str], None] = print,
) -> list[Answer]:
  """Returns the answers to so many mutants, or to as many as there is time for.

  Args:
    chosen: names of configs; one that cannot be started here as it is, is left out with a word.
    seed: of the mutants.
    number: of mutants.
    seconds: after which no further one is tried; the configs are tried by turns then.
    limit: seconds for one mutant.
    say: prints a line.
  """
  import jax

  from engine.build import to_plain
  from engine.preflight import preflight
  from errors import UserError

  configs: dict[str, Any] = {}
  answers: list[Answer] = []
  with tempfile.TemporaryDirectory() as folder, opened_once():
    workdir = f'{folder}/run'
    for name in chosen:
      config = load(name)
      try:
        preflight(config, workdir)
      except UserError as error:
        say(f'left out {name}: {error}')
        continue
      configs[name] = config
    end = time.monotonic() + seconds
    plain = {name: to_plain(config) for name, config in configs.items()}
    drawn = mutants(plain, seed, number)
    if math.isfinite(seconds):
      drawn = _in_blocks(drawn, random.Random(seed))
    before = ''
    for mutant in drawn:
      if time.monotonic() > end:
        break
      if mutant.config != before:
        jax.clear_caches()
        before = mutant.config
      answers.append(answer(configs[mutant.config], mutant, workdir, limit))
      if not answers[-1].right:
        say(_reproducer(answers[-1], seed))
  return answers


def _in_blocks(drawn: Sequence[Mutant], draw: random.Random) -> list[Mutant]:
  """The mutants in a random order of short blocks, each of one config."""
  groups = [[*group] for _, group in itertools.groupby(drawn, lambda mutant: mutant.config)]
  blocks = [group[i : i + _BLOCK] for group in groups for i in range(0, len(group), _BLOCK)]
  draw.shuffle(blocks)
  return [mutant for block in blocks for mutant in block]


def _reproducer(wrong: Answer, seed: int) -> str:
  mutant = wrong.mutant
  value = repr(mutant.value)
  shown = value if len(value) < 80 else f'{value[:80]}…'
  return (
    f'{wrong.verdict}: {mutant.config} config.{mutant.place} {mutant.kind} {shown} '
    f'({wrong.seconds:.1f} s, seed {seed})\n    {_printable(wrong.told[:300])}'
  )


def _printable(text: str) -> str:
  return text.encode(errors='backslashreplace').decode()


def table(answers: Sequence[Answer]) -> str:
  """The answers by kind of change."""
  columns = ('accepted', 'refused', 'wrong')
  counts: dict[str, collections.Counter] = {}
  for one in answers:
    column = one.verdict if one.right else 'wrong'
    counts.setdefault(one.mutant.kind, collections.Counter())[column] += 1
  counts['all'] = sum(counts.values(), collections.Counter())
  width = max(map(len, counts))
  rows = [f'{"kind of change":{width}} {"".join(f"{column:>10}" for column in columns)}']
  for kind, count in counts.items():
    rows.append(f'{kind:{width}} {"".join(f"{count[column]:>10}" for column in columns)}')
  wrong = collections.Counter(one.verdict for one in answers if not one.right)
  return '\n'.join([*rows, '', *(f'{count:5} {verdict}' for verdict, count in wrong.most_common())])


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--mutants', type=int, default=10_000)
  parser.add_argument('--configs', default='', help='names with commas between; all if not given')
  parser.add_argument('--seconds', type=float, default=math.inf, help='for all of them')
  parser.add_argument('--limit', type=int, default=10, help='seconds for one of them')
  options = parser.parse_args()

  from engine import runtime

  runtime.prepare()
  chosen = options.configs.split(',') if options.configs else names()
  started = time.perf_counter()
  answers = run(chosen, options.seed, options.mutants, options.seconds, options.limit)
  taken = time.perf_counter() - started
  print(table(answers))
  slowest = max(answers, key=lambda one: one.seconds)
  print(
    f'{len(answers)} mutants of {len({one.mutant.config for one in answers})} configs in '
    f'{taken:.0f} s; the slowest took {slowest.seconds:.1f} s ({slowest.mutant.config} '
    f'{slowest.mutant.place})'
  )
  sys.exit(int(not all(one.right for one in answers)))


if __name__ == '__main__':
  main()
