"""Starting a run from the parameters of others: the section `config.init_from`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from engine.init_rules import Source, action_of
from engine.restore import restore_run
from engine.session import Session
from engine.sharding import path_name
from engine.state import State, copied_averages
from errors import UserError

# Names shown of each kind before '…'.
_SHOWN = 4
_KINDS = ('loaded', 'frozen', 'skipped', 'missing', 'unused')


class Transfer(NamedTuple):
  """What became of every parameter and statistic of one module, by path.

  Attributes:
    source: the run and step they came from.
    loaded: copied.
    frozen: copied, and held.
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
    """Returns the lines that a person sees."""
    lines = [f'from {self.source}']
    for kind in _KINDS:
      names = getattr(self, kind)
      if names:
        more = f', … ({len(names) - _SHOWN} more)' if len(names) > _SHOWN else ''
        lines.append(f'{kind} {len(names)}: {", ".join(names[:_SHOWN])}{more}')
    return lines


def transfer(state: State, session: Session) -> tuple[State, list[Transfer]]:
  """Returns the fresh `state` with what `config.init_from` takes from other runs.

  Averaged parameters are taken where a source has averages. Optimizer states, averages and the
  step start afresh; every lane starts from the same parameters.

  Raises:
    UserError: no such run or module; a parameter of another shape; one to be frozen is missing;
      nothing fits.
  """
  reports = []
  for module, source in session.sources.items():
    values, report = _from_source(session, module, source)
    state = _with(state, values, session.lanes.number)
    reports.append(report)
  ema = copied_averages(session.averages, state.params, state.mutable)
  return state.replace(ema=ema), reports


def _from_source(
  session: Session, module: str, source: Source
) -> tuple[dict[str, jax.Array], Transfer]:
  """(values by path in this run, report) of one module."""
  try:
    restored = restore_run(source.run, source.checkpoint)
  except UserError as error:
    # A flag of sample.py and evaluate.py, which here is an option.
    told = str(error).replace('--checkpoint', f'config.init_from.{module}.checkpoint')
    raise UserError(f'config.init_from.{module}.run={source.run}: {told}') from error
  found = _of_module(restored.variables(), source.module or module, module, source.run)
  abstract = session.lane_abstract
  target = _flat({module: {'params': abstract.params[module], **abstract.mutable[module]}})
  action = action_of(source.rules, module)
  kinds: dict[str, list[str]] = {name: [] for name in _KINDS}
  values: dict[str, jax.Array] = {}
  for path, leaf in target.items():
    chosen = action(path)
    if chosen == 'skip':
      kinds['skipped'].append(path)
    elif path not in found:
      kinds['missing'].append(path)
    else:
      _check(path, leaf, found[path], module, source.run)
      values[path] = found[path]
      kinds['frozen' if chosen == 'freeze' else 'loaded'].append(path)
  kinds['unused'] = [path for path in found if path not in target]
  _check_found(source, module, kinds, action, found, target)
  return values, Transfer(f'{source.run}, step {restored.step}', **kinds)


def _of_module(
  variables: Mapping[str, Any], theirs: str, ours: str, run: str
) -> dict[str, jax.Array]:
  """The leaves of a module of another run, by their paths in this one."""
  if theirs not in variables:
    raise UserError(
      f'config.init_from.{ours}: {run} has no module "{theirs}", only {", ".join(variables)}; name '
      f'one with --config.init_from.{ours}.module='
    )
  return _flat({ours: variables[theirs]})


def _check_found(source: Source, module: str, kinds, action, found, target) -> None:
  lost = [path for path in kinds['missing'] if action(path) == 'freeze']
  if lost:
    raise UserError(
      f'config.init_from.{module}.rules freezes {lost[0]}, which {source.run} does not have; load '
      'or skip it'
    )
  if not kinds['loaded'] and not kinds['frozen']:
    raise UserError(
      f'config.init_from.{module} takes nothing from {source.run}: it has '
      f'{", ".join([*found][:_SHOWN])}, this run {", ".join([*target][:_SHOWN])}; mend '
      f'config.init_from.{module}.rules, or leave config.init_from.{module}.run empty'
    )


def _flat(variables: Mapping[str, Any]) -> dict[str, jax.Array]:
  """{path: leaf} with the collection's name left out of parameters' paths, as everywhere."""
  leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
  return {_short(path_name(path)): leaf for path, leaf in leaves}


def _short(path: str) -> str:
  module, collection, rest = path.split('/', 2)
  return f'{module}/{rest}' if collection == 'params' else path


def _check(path: str, leaf: jax.Array, source: jax.Array, module: str, run: str) -> None:
  if leaf.shape != source.shape:
    raise UserError(
      f'{path} is {tuple(source.shape)} in {run} and {tuple(leaf.shape)} here; start it afresh '
      f'with --config.init_from.{module}.rules={path.rsplit("/", 1)[0]}=skip,.*=load'
    )


def _with(state: State, values: Mapping[str, jax.Array], lanes: int) -> State:
  def placed(path: Any, leaf: jax.Array) -> jax.Array:
    name = path_name(path)
    if name not in values:
      return leaf
    value = values[name].astype(leaf.dtype)
    value = jnp.broadcast_to(value, leaf.shape) if lanes > 1 else value
    # From device to device: what is split there is never whole on one of them. A copy, because
    # device_put may return the source's own buffer, which training would donate.
    return jax.device_put(value, leaf.sharding, may_alias=False)

  def replaced(tree: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree_util.tree_map_with_path(placed, dict(tree))

  return state.replace(params=replaced(state.params), mutable=replaced(state.mutable))
