"""Flags that follow from the run in --workdir: its evaluators, and where its parameters are put."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from commands import cli
from engine.build import to_plain
from errors import UserError, choose

if TYPE_CHECKING:
  from engine.restore import Placement

# The sections of a run's config that say where its parameters are put.
PLACEMENT = ('mesh', 'sharding')


def define_run_flags(argv: Sequence[str], sections: Sequence[str] = PLACEMENT) -> Sequence[str]:
  """Defines --mesh, and --config.SECTION.OPTION=VALUE for some sections of the run in --workdir.

  Args:
    argv: the command line, which nothing has parsed yet.
    sections: whose options can be overridden; `PLACEMENT` is among them.

  Returns:
    The rest of the command line. Without --workdir, and where only --help is asked for and the run
    cannot be read, all of it, and there is no flag --config.

  Raises:
    UserError: --workdir is no run, or the command line overrides what the run does not have.
  """
  flags.DEFINE_string(
    'mesh', None, 'Sizes of mesh axes, e.g. data:1,fsdp:8; short for --config.mesh.AXIS=SIZE.'
  )
  cli.show_in_help('mesh', argv)
  workdir = cli.value_of(argv, 'workdir')
  if not workdir:
    return argv
  # They import jax, for which `cli.launch` prepares the process.
  from commands import overrides
  from engine.restore import stored_config

  try:
    stored = stored_config(workdir)
  except UserError:
    if cli.asks_for_help(argv):
      return argv
    raise
  shown = ConfigDict({section: stored[section] for section in sections})
  doc = f'Options of the run that can be overridden: --config.{"|".join(sections)}.…=VALUE.'
  return overrides.define(shown, argv, workdir, doc)


def placement(values: flags.FlagValues) -> Placement:
  """Returns where the parameters of the run go, given the flags of `define_run_flags`.

  Raises:
    UserError: --mesh is none, or --config.mesh is given beside it.
  """
  from engine.restore import Placement  # It imports jax, before which flags are parsed.

  given = values['config'].keys
  along_axes = [key for key in given if key.startswith('mesh.')]
  if values.mesh is not None and along_axes:
    raise UserError(f'--mesh={values.mesh} is short for --config.{along_axes[0]}; give one of them')
  mesh = None
  if values.mesh is not None:
    mesh = parse_mesh(values.mesh)
  elif along_axes:
    mesh = to_plain(values.config.mesh)
  sharding = to_plain(values.config.sharding) if 'sharding' in given else None
  return Placement(mesh, sharding)


def refuse_without_effect(values: flags.FlagValues) -> None:
  """Refuses options of evaluators that evaluate.py does not read.

  Raises:
    UserError: an option is given beside a flag that stands for all evaluators, or says when
      training evaluates.
  """
  for key in values['config'].keys:
    if not key.startswith('evaluators.'):
      continue
    last = key.rpartition('.')[2]
    if last in ('split', 'average') and values[last].value:
      raise UserError(
        f'--{last}={values[last].value} stands for that of every evaluator, --config.{key} too; '
        'give one of them'
      )
    if last == 'every':
      raise UserError(
        f'--config.{key} has no effect: evaluate.py runs every evaluator once; leave it out'
      )


def parse_mesh(text: str) -> dict[str, int]:
  """Returns the size of every axis in e.g. 'data:1,fsdp:8'.

  Raises:
    UserError: an axis is unknown, or a size is no whole number of at least 1, nor -1 for the rest.
  """
  from engine.sharding import AXES

  sizes: dict[str, int] = {}
  for part in text.split(','):
    axis, colon, size = part.partition(':')
    if not colon or not re.fullmatch(r'-1|0*[1-9][0-9]*', size):
      raise UserError(
        f'--mesh={text}: write AXIS:SIZE, e.g. data:1,fsdp:8, and -1 for all devices left'
      )
    choose(dict.fromkeys(AXES), axis, '--mesh')
    if axis in sizes:
      raise UserError(f'--mesh={text} gives the axis {axis} twice; give one size')
    sizes[axis] = int(size)
  return sizes
