"""The commands that the documentation shows, and a process that parses them as the scripts do."""

import argparse
import ast
import json
import os
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')))
SCRIPTS = (
  *sorted(ROOT.glob('*.py')),
  *(path for name in ('configs', 'tools', 'benchmarks') for path in (ROOT / name).glob('*.py')),
  ROOT / 'tests' / 'golden' / 'record.py',
)
# Our scripts may be named without `python` before them, if an option follows.
_SCRIPT = r'(?:train|sample|evaluate|predict|plan)\.py --'

# The runs that commands speak of, beside runs/NAME of configs/NAME.py and runs/NAME-DATA.
RUNS = {
  'runs/a': ['configs/gan.py'],
  'runs/b': ['configs/gan.py', '--config.train.seed=1'],
  # The stand-in for data has ten classes.
  'runs/tabular': ['configs/tabular.py', '--config.objective.loss=softmax'],
  'runs/mlp-seeds': ['configs/mlp.py', '--config.seeds=8'],
  'runs/vae2': ['configs/vae.py', '--config.modules.encoder.latent_size=2'],
}


def collect() -> dict[str, list[str]]:
  """Returns every command of the documentation, and where it stands."""
  found: dict[str, list[str]] = {}
  for path in (*PAGES, *SCRIPTS):
    text = path.read_text()
    commands = of_page(text) if path.suffix == '.md' else of_docstring(text)
    for command in commands:
      found.setdefault(command, []).append(str(path.relative_to(ROOT)))
  return found


def of_page(text: str) -> list[str]:
  """The shell commands of a Markdown page: of its fenced blocks, and inline ones of ours."""
  fences = r'^[ ]*```(\w*)\n(.*?)^[ ]*```'
  blocks = [body for kind, body in re.findall(fences, text, re.S | re.M) if kind == 'sh']
  found = [command for body in blocks for command in _of_shell(body)]
  prose = re.sub(fences, '', text, flags=re.S | re.M)
  for code in re.findall(r'`([^`]+)`', prose):
    code = ' '.join(code.split())
    if re.match(rf'(python|make) |{_SCRIPT}', code):
      found += _of_shell(code)
  return found


def of_docstring(source: str) -> list[str]:
  """The commands in a file's docstring: lines that begin with one, or end with one after ': '."""
  text = (ast.get_docstring(ast.parse(source)) or '').replace('\\\n', ' ')
  lines = re.findall(r'(?:^ *|: )((?:python|make|git|pip) .*)$', text, re.M)
  return [command for line in lines for command in _of_shell(line)]


def _of_shell(text: str) -> list[str]:
  """Single commands, without comments and redirections."""
  found = []
  for line in text.replace('\\\n', ' ').splitlines():
    line = re.sub(r'(^|\s)#.*', '', line)
    for part in re.split(r'&&|;|\|(?![^\'"]*[\'"])', line):
      command = ' '.join(re.sub(r'(?<!\S)>\s*\S+', '', part).split())
      # Variables that are set for one command.
      command = re.sub(r'^(?:[A-Z_]+=\S+ )+(?=python )', '', command)
      if re.match(_SCRIPT, command):
        command = f'python {command}'
      if command:
        found.append(command)
      # A script of ours that another program starts is checked as well.
      started = re.search(r'\b(?:train|evaluate)\.py [^"\']+', command)
      if started and not command.startswith(('python train', 'python evaluate')):
        found.append(f'python {started[0]}')
  return found


def check(commands: Sequence[str], workdir: str) -> dict[str, str]:
  """Parses commands `python …` as their scripts would, in a process each; nothing is run.

  Flags, options of configs and the names of configs, runs and modules are checked.

  Args:
    commands: to check.
    workdir: an empty folder, where the runs of `RUNS` are made, without parameters.

  Returns:
    What is wrong with each; '' for nothing.
  """
  os.chdir(workdir)
  Path('configs').symlink_to(ROOT / 'configs')
  _make_runs(commands)
  return {command: _in_child(shlex.split(command)[1:]) for command in commands}


def _make_runs(commands: Sequence[str]) -> None:
  from commands import cli, config_flags, overrides
  from engine import run
  from tools.list_options import _looks

  named = {name for command in commands for name in re.findall(r'runs/[\w-]+', command)}
  for name in sorted(named):
    own = f'configs/{name.removeprefix("runs/").split("-")[0]}.py'
    path, *changes = RUNS.get(name, [own])
    if not Path(path).is_file():
      continue
    try:
      config = cli.load(path)
    except cli.UserError:
      continue  # It starts from a run itself.
    config_flags.complete_init_from(config)
    overrides.override(config, ['', *changes], path)
    run.claim(name, config, _looks(config))


def _in_child(words: list[str]) -> str:
  with tempfile.TemporaryFile() as said:
    child = os.fork()
    if not child:
      os.dup2(said.fileno(), 1)
      os.dup2(said.fileno(), 2)
      code = 1
      try:
        _parse(words)
        code = 0
      except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
      except BaseException as error:
        print(f'{type(error).__name__}: {error}')
      finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said.seek(0)
    return said.read().decode()[:500] or f'ended with {code}' if code else ''


def _parse(words: list[str]) -> None:
  """Runs a script up to where its flags are parsed, and checks the config that they make."""
  from absl import app, flags

  from commands import cli
  from engine import runtime

  # It comes before jax, which is imported once for all commands here.
  runtime.prepare = lambda: None
  launch, parse = cli.launch, argparse.ArgumentParser.parse_args

  def launch_checks(main: Callable, argv: Sequence[str], *rest: Any, **options: Any) -> None:
    del main
    launch(lambda *_: _check_config(flags.FLAGS), argv, *rest, **options)

  def run_checks(main: Callable) -> None:
    del main
    flags.FLAGS(sys.argv)
    if 'config' in flags.FLAGS:
      cli.load(flags.FLAGS.config)

  def parse_and_end(self: argparse.ArgumentParser, *arguments: Any) -> None:
    parse(self, *arguments)
    sys.exit(0)

  cli.launch, app.run, argparse.ArgumentParser.parse_args = launch_checks, run_checks, parse_and_end
  if words[0] == '-m':
    sys.argv = words[1:]
    runpy.run_module(words[1], run_name='__main__', alter_sys=True)
  else:
    sys.argv = words
    runpy.run_path(str(ROOT / words[0]), run_name='__main__')


def _check_config(values: Mapping[str, Any]) -> None:
  from ml_collections import ConfigDict

  from engine import run
  from engine.build import to_plain
  from engine.declarations import check_config

  config = values.config if 'config' in values else None
  if not isinstance(config, ConfigDict):
    return
  if 'train' not in config:  # The sections that can be overridden after the training.
    config = ConfigDict(to_plain({**run.read_config(values.workdir), **config}))
  check_config(config)


if __name__ == '__main__':
  given = json.load(sys.stdin)
  print(json.dumps(check(given, sys.argv[1])))
