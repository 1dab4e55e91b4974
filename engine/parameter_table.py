"""The parameters of every module by layer, as lines of a table."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from engine.sharding import path_name

# Most rows of a module; deeper layers are counted with the layer that holds them beyond that.
MOST_ROWS = 30


class _Row(NamedTuple):
  """One or several layers that look the same, or the layers below one.

  Attributes:
    layer: the path of the layer, with `*` for the number of each of several.
    times: how many layers these are.
    shapes: names and shapes of a layer's parameters, or how many layers are below this one.
    size: numbers in all of them.
  """

  layer: str
  times: int
  shapes: str
  size: int


def parameter_table(params: Mapping[str, Any]) -> list[str]:
  """Returns aligned lines: layers, shapes and numbers of parameters, by module.

  Layers that differ in nothing but numbers in their names share a row. A module of more than
  `MOST_ROWS` rows is shown less deep.

  Args:
    params: `{module: parameters}` or their shapes.
  """
  rows: list[_Row] = []
  for module, tree in params.items():
    layers = _layers(tree)
    size = sum(leaf.size for leaf in jax.tree.leaves(tree))
    rows += [_Row(module, 1, '', size), *_rows_of(layers)]
  layer_width = max(len(row.layer) for row in rows)
  shape_width = max(len(_shapes(row)) for row in rows)
  return [
    f'{row.layer:{layer_width}}  {_shapes(row):{shape_width}}  {row.size:>13,}' for row in rows
  ]


def _shapes(row: _Row) -> str:
  return f'{row.times} × ({row.shapes})' if row.times > 1 else row.shapes


def _layers(tree: Any) -> dict[tuple[str, ...], dict[str, tuple[int, ...]]]:
  """The shape of each parameter of each layer, by the path of the layer."""
  layers: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    *layer, name = path_name(path).split('/')
    layers.setdefault(tuple(layer), {})[name] = leaf.shape
  return dict(sorted(layers.items(), key=lambda item: [*map(_by_number, item[0])]))


def _by_number(part: str) -> list[tuple[int, str]]:
  """Sorts block_10 after block_9."""
  return [
    (int(word or 0), '') if word.isdigit() else (0, word) for word in re.split(r'(\d+)', part)
  ]


def _rows_of(layers: Mapping[tuple[str, ...], Mapping[str, tuple[int, ...]]]) -> list[_Row]:
  deepest = max(map(len, layers), default=0)
  for depth in range(deepest, 0, -1):
    rows = _rows_at(layers, depth)
    if len(rows) <= MOST_ROWS:
      return rows
  return _rows_at(layers, 1)


def _rows_at(
  layers: Mapping[tuple[str, ...], Mapping[str, tuple[int, ...]]], depth: int
) -> list[_Row]:
  """The rows where layers below `depth` are counted with the one that holds them."""
  # layer, as deep as it is shown -> path below it -> shapes of parameters
  shown: dict[tuple[str, ...], dict[tuple[str, ...], Mapping[str, tuple[int, ...]]]] = {}
  for path, shapes in layers.items():
    shown.setdefault(path[:depth], {})[path[depth:]] = shapes
  alike: dict[Any, list[tuple[str, ...]]] = {}
  for path, below in shown.items():
    content = tuple((inner, tuple(shapes.items())) for inner, shapes in below.items())
    alike.setdefault((re.sub(r'\d+', '*', '/'.join(path)), content), []).append(path)
  rows = []
  for (pattern, content), paths in alike.items():
    size = len(paths) * sum(_size(shape) for _, shapes in content for _, shape in shapes)
    layer = '/'.join(paths[0]) if len(paths) == 1 else pattern
    rows.append(_Row(f'  {layer}', len(paths), _look(content), size))
  return rows


def _look(content: tuple) -> str:
  if len(content) > 1:
    return f'{len(content)} layers'
  ((_, shapes),) = content
  return ', '.join(f'{name} {" × ".join(map(str, shape)) or "scalar"}' for name, shape in shapes)


def _size(shape: tuple[int, ...]) -> int:
  size = 1
  for extent in shape:
    size *= extent
  return size
