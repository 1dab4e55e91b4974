"""Imports point one way, and nothing chooses by a model's name."""

import ast
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
  'metrics': set(),
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
