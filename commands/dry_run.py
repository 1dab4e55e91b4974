"""Prints the config, parameters, memory and operations of a run without training it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from data.feed import Feed
from data.resident import Resident
from engine import run, summaries
from engine.feeds import open_feed
from engine.flops import count_flops
from engine.parameter_table import parameter_table
from engine.preflight import preflight
from engine.program import Traced, make_program
from engine.session import Session


class Program(NamedTuple):
  """The memory and operations of the compiled training program.

  Attributes:
    memory: bytes on one device by what they are for; the data and the state are `jax.Array`s'
      own, the rest is XLA's.
    flops: of one step of all lanes; see `engine.flops.count_flops`.
  """

  memory: Mapping[str, int]
  flops: int


def dry_run(config: ConfigDict, workdir: str) -> None:
  """Prints what training `config` in `workdir` would be; nothing is written to the folder.

  The data set is read, and prepared in the cache if it is not yet; the program is compiled, and no
  parameter is allocated.

  Raises:
    UserError: training would be refused.
  """
  session, evaluators, _, traced, _ = preflight(config, workdir)
  changes = run.changes(workdir, config, session.spec)
  feed = open_feed(session, 0)
  try:
    program = compile_program(session, feed, traced)
    data = summaries.data(session.spec, isinstance(feed, Resident))
  finally:
    feed.close()
  if jax.process_index():
    return
  print('\n'.join(_values(config)), end='\n\n')
  for line in changes:
    print(f'changed  {line}')
  print(f'devices  {summaries.devices(session.mesh)}')
  print(f'data     {data}')
  print(f'modules  {summaries.modules(session.lane_abstract, session.lanes.number)}')
  print(f'length   {_length(session)}')
  for reason in evaluators[0].refused.values():
    print(f'note     evaluate.py will refuse this: {reason}')
  _print_block('parameters', parameter_table(session.lane_abstract.params))
  _print_block('memory of a device in training', _memory_table(program.memory))
  print(
    f'\noperations of a step (an estimate from its products and convolutions)  '
    f'{_short(program.flops)}FLOP'
  )
  print(f'\nnothing was trained, and nothing was written to {workdir}')


def _values(config: ConfigDict, prefix: str = '--config') -> list[str]:
  """Every option of a config with its value, as it is written on the command line."""
  lines = []
  for key, value in config.items():
    path = f'{prefix}.{key}'
    lines += _values(value, path) if isinstance(value, ConfigDict) else [f'{path}={value}']
  return lines


def compile_program(session: Session, feed: Feed, traced: Traced | None = None) -> Program:
  """Compiles the training program of a session without allocating its state."""
  _, taken = feed.take(0, session.train.dispatch)

  def scalar(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=session.replicated)

  dispatch = make_program(session, feed, traced).dispatch.trace(
    session.abstract,
    scalar((), np.bool_),
    taken,
    scalar((), np.int32),
    scalar((session.lanes.number,), np.bool_),
  )
  state = session.abstract
  memory = {
    'parameters': _bytes(state.params),
    'optimizer state': _bytes(state.opt_state),
    'averages (ema)': _bytes(state.ema),
    'other variables': _bytes((state.mutable, state.step, state.key)),
    'data': _bytes(taken),
  }
  needed = dispatch.lower().compile().memory_analysis()
  if needed is not None:
    held = needed.output_size_in_bytes - needed.alias_size_in_bytes
    memory['activations, gradients, temporaries'] = needed.temp_size_in_bytes + held
  return Program(memory, count_flops(dispatch.jaxpr.jaxpr))


def _bytes(tree: Any) -> int:
  """Bytes on one device of arrays, or of their shapes and shardings."""
  return sum(
    int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _length(session: Session) -> str:
  steps, per_step = session.train.steps, session.per_step
  epochs = steps * per_step / session.spec.n
  each = f' in each of {session.lanes.number} lanes' if session.lanes.number > 1 else ''
  return f'{steps:,} steps of {per_step:,} examples{each}, {epochs:.4g} epochs'


def _memory_table(memory: Mapping[str, int]) -> list[str]:
  width = max(map(len, memory))
  rows = {**memory, 'in all': sum(memory.values())}
  return [f'{name:{width}}  {value / 2**20:>12,.2f} MiB' for name, value in rows.items()]


def _print_block(title: str, lines: list[str]) -> None:
  print(f'\n{title}')
  for line in lines:
    print(f'  {line}')


def _short(number: int) -> str:
  """'1.23 G' for 1.23e9."""
  thousands = min((len(str(number)) - 1) // 3, len(_PREFIXES) - 1)
  return f'{number / 1000**thousands:.3g} {_PREFIXES[thousands]}'


_PREFIXES = ('', 'k', 'M', 'G', 'T', 'P')
