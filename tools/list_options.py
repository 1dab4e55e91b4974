"""Writes docs/options.md, the page of every option that is declared: python -m tools.list_options

A table for every section of a config and for everything that a `name` in a config can build, from
the declarations that the checks, the messages and `--help` read too.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from commands import cli

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'options.md'
COMMAND = 'python -m tools.list_options'

_BEGINNING = f"""# Options

Every option of a config: its type, its range, its default where a config need not give it, and its
meaning. `--config.SECTION.OPTION=VALUE` sets one on the command line, a list as `a,b`; of an option
given twice the last one counts. A flag may also give an option that the config does not show and
that the named thing takes (`--config.optimizer.model.eps=1e-6`).
`python train.py --config=configs/gan.py --help` lists those of one config with their values.
No number may be nan or infinite.

`{COMMAND}` writes this page from the declarations in the code; do not edit it.
"""
# What the sections hold, by the place in `engine.declarations.FIXED`, in the order of the page.
_SECTIONS = {
  'data': 'config.data',
  r'data\.text': 'config.data.text',
  r'data\.augment': 'config.data.augment',
  r'data\.image': 'config.data.image',
  r'data\.table': 'config.data.table',
  r'data\.jsonl': 'config.data.jsonl',
  'train': 'config.train',
  'ema': 'config.ema.NAME',
  'init_from': 'config.init_from.MODULE',
  'checkpoint': 'config.checkpoint',
  'report': 'config.report',
  'mesh': 'config.mesh',
}
_ROOMS = {
  'models': ('config.modules.NAME', 'Modules'),
  'objectives': ('config.objective', 'Objectives'),
  'engine.evaluators': ('config.evaluators.NAME', 'Evaluators'),
  'metrics': ('config.evaluators.NAME.metrics.NAME', 'Metrics'),
  'metrics.features': ('config.evaluators.NAME.features', 'Extractors of features'),
}
# Data that the samplers, predictors and measurements of the page are those of.
_CLASSES = 10


def main() -> None:
  PAGE.write_text(page())
  print(f'written  {PAGE.relative_to(ROOT)}')


def page() -> str:
  """Returns the page as it should be."""
  # They import jax, which must come after the process was prepared.
  from engine import declarations
  from engine.optimizer_options import COMMON, SCHEDULE

  parts = [_BEGINNING, '## The run\n', _table(declarations.RUN, 'config.')]
  for place, title in _SECTIONS.items():
    fixed = declarations.FIXED
    options = fixed[next(key for key in fixed if key == place or key.startswith(f'{place}\\.['))]
    parts += [f'## {title}\n', _table(options)]
  parts += ['## config.optimizer.NAME\n', _table(COMMON)]
  parts += ['### config.optimizer.NAME.schedule\n', _table(SCHEDULE)]
  parts += [*_own_options_of_optimizers()]
  for room, (place, title) in _ROOMS.items():
    parts += [f'## {title}: {place}\n', *_things(room)]
  parts += [*_of_objectives()]
  return '\n'.join(parts)


def _table(options: Mapping, prefix: str = '') -> str:
  rows = [f'| `{prefix}{name}` | {_cells(option)} |' for name, option in options.items()]
  return '\n'.join(
    ['| key | type | range | default | meaning |', '| --- | --- | --- | --- | --- |', *rows, '']
  )


def _cells(option) -> str:
  from options import REQUIRED

  default = option.default
  shown = '' if default is REQUIRED or default is None else f'`{_written(default)}`'
  return ' | '.join(
    text.replace('|', r'\|') for text in (option.kind, option.allowed, shown, option.doc)
  )


def _written(default: object) -> str:
  if isinstance(default, (tuple, list)):
    return ','.join(map(str, default)) or '()'
  return str(default) if default != '' else "''"


def _own_options_of_optimizers() -> Iterator[str]:
  """The options of single optimizers: one row for options that mean the same."""
  from engine.optimizer_options import COMMON
  from engine.optimizers import optimizers, section_options

  owners: dict[tuple, list[str]] = {}
  for name in sorted(optimizers()):
    for key, option in section_options({'name': name}, name).items():
      if key not in COMMON:
        # Defaults are optax's, and differ.
        owners.setdefault((key, option._replace(default=None)), []).append(name)
  rows = {}
  for (key, option), names in sorted(owners.items(), key=lambda item: item[0][0]):
    with_owners = option._replace(doc=f'{option.doc} Of {", ".join(names)}.')
    rows.setdefault(key, []).append(with_owners)
  yield '### Options of single optimizers\n'
  yield f'`name` is one of {", ".join(f"`{name}`" for name in sorted(optimizers()))}.\n'
  lines = [f'| `{key}` | {_cells(option)} |' for key, same in rows.items() for option in same]
  yield '\n'.join(
    ['| key | type | range | default | meaning |', '| --- | --- | --- | --- | --- |', *lines, '']
  )


def _things(room: str) -> Iterator[str]:
  """A table for everything in a room that declares options."""
  from options import declared_options

  for name, target in _classes(room):
    options = declared_options(target)
    if options:
      yield f'### `{name}`\n'
      yield f'{_first_line(target)}\n'
      yield _table(options)


def _classes(room: str) -> Iterator[tuple[str, Callable]]:
  """The classes of a room that a config can name, and what it names them."""
  package = importlib.import_module(room)
  for file in sorted(each.name for each in pkgutil.iter_modules(package.__path__)):
    module = importlib.import_module(f'{room}.{file}')
    for key, value in vars(module).items():
      own = inspect.isclass(value) and value.__module__ == module.__name__
      if own and not key.startswith('_') and not inspect.isabstract(value):
        alone = key.lower() == file.replace('_', '')
        yield (file if alone else f'{file}.{key}'), value


def _first_line(target: Callable) -> str:
  """The first sentence of a docstring."""
  paragraph = ' '.join((inspect.getdoc(target) or '').split('\n\n')[0].split())
  return re.split(r'(?<=\.)\s', paragraph)[0]


def _of_objectives() -> Iterator[str]:
  """The options of samplers and predictors, flags of the scripts, and of measurements."""
  samplers, predictors, measurements = {}, {}, {}
  for name, objective in _objectives().items():
    if objective.sampler is not None and objective.sampler.options:
      samplers[name] = objective.sampler.options
    if objective.predictor is not None and objective.predictor.options:
      predictors[name] = objective.predictor.options
    measurements.update(
      {f'{name}: `{key}`': each.options for key, each in objective.measurements.items()}
    )
  for title, script, declared in (
    ('Samplers', 'sample.py', samplers),
    ('Predictors', 'predict.py', predictors),
  ):
    yield f'## {title}: flags of {script}\n'
    yield f'`python {script} --workdir=RUN --OPTION=VALUE`; classes as of data with {_CLASSES}.\n'
    for name, options in declared.items():
      yield f'### Of the objective {name}\n'
      yield _table(options, '--')
  yield '## Measurements: config.evaluators.NAME of an evaluator `measure`\n'
  yield 'Beside the options of `measure` itself.\n'
  for name, options in measurements.items():
    yield f'### {name}\n'
    yield _table(options)


def _objectives() -> dict:
  """The objective of every config, by its name; of those that have the same one, the first."""
  from engine.objective import build_objective
  from errors import UserError

  found = {}
  for path in sorted((ROOT / 'configs').glob('*.py')):
    if path.stem in ('__init__', 'defaults'):
      continue
    try:
      config = cli.load(str(path))
    except (UserError, TypeError):
      continue  # It needs an argument, and has the objective of another.
    name = config.objective.name
    if name not in found:
      found[name] = build_objective(config, _looks(config), config.train.precision)
  return dict(sorted(found.items()))


def _looks(config):
  """A split of images, a table or text, as the config expects it."""
  from data.spec import Spec
  from data.text import tokenization

  label = {'label': ((), 'int32')}
  if not config.data.text:
    features = {'image': ((28, 28, 1), 'uint8'), 'inputs': ((10,), 'float32'), **label}
    return Spec('images', 'train', 1, features, _CLASSES, '')
  row = ((config.data.text.length,), 'int32')
  features = {'tokens': row, 'kind': row, 'length': ((), 'int32'), **label}
  tokenizer = tokenization.train('byte', (), 0, tuple(config.data.text.specials)).to_json()
  return Spec('text', 'train', 1, features, _CLASSES, '', (), tokenizer)


if __name__ == '__main__':
  cli.launch(main, sys.argv)
