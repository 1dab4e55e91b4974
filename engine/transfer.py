"""Starting a run from the parameters of another: `config.init_from` and `config.init_rules`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from engine.init_rules import action_of
from engine.restore import restore_run
from engine.sharding import path_name
from engine.state import State, variables_for_sampling
from errors import UserError

# Names shown of each kind before '…'.
_SHOWN = 4


class Transfer(NamedTuple):
  """What became of every parameter and statistic, by path.

  Attributes:
    source: the run and step they came from.
    loaded: taken over.
    frozen: taken over, and held.
    skipped: started afresh, by a rule.
    missing: to be loaded, but not in the source; started afresh.
    unused: in the source alone.
  """

  source: str
  loaded: Sequence[str]
  frozen: Sequence[str]
  skipped: Sequence[str]
  missing: Sequence[str]
  unused: Sequence[str]

  def lines(self) -> list[str]:
    """What a person is told."""
    lines = [f'from {self.source}']
    for kind in ('loaded', 'frozen', 'skipped', 'missing', 'unused'):
      names = getattr(self, kind)
      if names:
        more = f', … ({len(names) - _SHOWN} more)' if len(names) > _SHOWN else ''
        lines.append(f'{kind} {len(names)}: {", ".join(names[:_SHOWN])}{more}')
    return lines


def transfer(state: State, init_from: str, rules: str) -> tuple[State, Transfer]:
  """Returns the fresh `state` with what the rules take from the run `init_from`.

  Averaged parameters are taken where the source has averages, and of its checkpoints the one that
  sample.py would take. Optimizer states, averages and the step start afresh.

  Raises:
    UserError: no such run; a parameter of another shape; one to be frozen is missing; nothing fits.
  """
  restored = restore_run(init_from, '')
  found = _flat(variables_for_sampling(restored.state))
  wanted = _flat({m: {'params': p, **state.mutable[m]} for m, p in state.params.items()})
  action = action_of(rules)
  kinds: dict[str, list[str]] = {name: [] for name in Transfer._fields[1:]}
  values: dict[str, Any] = {}
  for path, leaf in wanted.items():
    what = action(path)
    if what == 'skip':
      kinds['skipped'].append(path)
    elif path not in found:
      kinds['missing'].append(path)
    else:
      _check(path, leaf, found[path], init_from)
      values[path] = found[path]
      kinds['frozen' if what == 'freeze' else 'loaded'].append(path)
  kinds['unused'] = [path for path in found if path not in wanted]
  lost = [path for path in kinds['missing'] if action(path) == 'freeze']
  if lost:
    raise UserError(
      f'config.init_rules freezes {lost[0]}, which {init_from} does not have; load or skip it'
    )
  if not values:
    raise UserError(
      f'config.init_rules takes nothing from {init_from}: it has {", ".join([*found][:_SHOWN])}, '
      f'this run {", ".join([*wanted][:_SHOWN])}; mend the rules, or leave config.init_from empty'
    )
  report = Transfer(f'{init_from}, step {restored.step}', **kinds)
  return _with(state, values), report


def _flat(variables: Mapping[str, Any]) -> dict[str, jax.Array]:
  """{path: leaf} with the collection's name left out of parameters' paths, as everywhere."""
  leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
  return {_short(path_name(path)): leaf for path, leaf in leaves}


def _short(path: str) -> str:
  module, collection, rest = path.split('/', 2)
  return f'{module}/{rest}' if collection == 'params' else path


def _check(path: str, leaf: jax.Array, source: jax.Array, init_from: str) -> None:
  if leaf.shape != source.shape:
    raise UserError(
      f'{path} is {tuple(source.shape)} in {init_from} and {tuple(leaf.shape)} here; start it '
      f'afresh with --config.init_rules={path.rsplit("/", 1)[0]}=skip,.*=load'
    )


def _with(state: State, values: Mapping[str, Any]) -> State:
  def placed(path: str, leaf: jax.Array) -> jax.Array:
    if path not in values:
      return leaf
    return jax.device_put(np.asarray(jax.device_get(values[path]), leaf.dtype), leaf.sharding)

  def params(tree: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree_util.tree_map_with_path(lambda p, leaf: placed(path_name(p), leaf), dict(tree))

  new = params(state.params)
  return state.replace(
    params=new,
    mutable=params(state.mutable),
    # A copy: a donated buffer must not appear twice in the state.
    ema={module: jax.tree.map(lambda x: x.copy(), new[module]) for module in state.ema},
  )
