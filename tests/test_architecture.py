"""Imports point one way, and nothing chooses by a model's name."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
  'configs', 'models', 'losses', 'objectives', 'sampling', 'data', 'metrics', 'engine', 'commands',
  'tools',
  'benchmarks',
)  # fmt: skip

# What each package may import of ours, besides itself and `errors`.
ALLOWED = {
  'configs': set(),
  'models': set(),
  'losses': set(),
  'sampling': set(),
  'metrics': {'models', 'data.folders'},  # extractors are models, and lie in the cache
  'data': set(),
  'objectives': {'losses', 'sampling'},
  'engine': {'objectives.base', 'metrics.base', 'data'},
}


def imports(path: Path) -> set[str]:
  """Dotted names of everything that a file imports, at any depth."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names} | {node.module}
  return found


def imports_at_once(path: Path) -> set[str]:
  """Dotted names of what is imported when a file is: not in functions, nor for its hints alone."""
  found = set()
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names} | {node.module}
  return found


def files(package: str) -> list[Path]:
  return sorted((ROOT / package).rglob('*.py'))


@pytest.mark.parametrize('package', ALLOWED)
def test_imports_point_one_way(package):
  for path in files(package):
    for name in imports(path):
      top = name.split('.')[0]
      if top not in PACKAGES or top == package:
        continue
      reached = {name, top, '.'.join(name.split('.')[:2])}
      assert reached & ALLOWED[package], f'{path.relative_to(ROOT)} imports {name}'


def test_any_module_can_be_the_first_that_is_imported():
  """A cycle of imports works or fails by which of its modules comes first."""
  modules = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
    for package in PACKAGES
    for path in files(package)
  }
  graph = {name: imports_at_once(path) & modules.keys() for name, path in modules.items()}
  assert sum(map(len, graph.values())) > 300
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    pytest.fail(f'these import each other: {" → ".join(reversed(error.args[1]))}')


def test_nothing_imports_tools_or_the_tests():
  for package in PACKAGES:
    for path in files(package):
      for name in imports(path):
        assert name.split('.')[0] not in ('tests', *(() if package == 'tools' else ('tools',)))


def test_no_tensorflow_torch_or_clu_outside_the_benchmarks():
  for package in (*PACKAGES, '.'):
    if package == 'benchmarks':
      continue
    for path in files(package) if package != '.' else ROOT.glob('*.py'):
      tops = {name.split('.')[0] for name in imports(path)}
      assert not tops & {'tensorflow', 'torch', 'clu'}, path


@pytest.mark.parametrize('package', ['engine', 'objectives', 'models', 'losses'])
def test_no_choice_by_a_name(package):
  """A comparison of something called `name` with a string is an if-chain in the making."""
  for path in files(package):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq) for op in node.ops):
        sides = [node.left, *node.comparators]
        named = any(getattr(s, 'id', getattr(s, 'attr', '')) == 'name' for s in sides)
        text = any(isinstance(s, ast.Constant) and isinstance(s.value, str) for s in sides)
        assert not (named and text), f'{path.relative_to(ROOT)}:{node.lineno}'
