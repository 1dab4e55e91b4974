"""Flags for the options that the objective of the run in --workdir declares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from commands import cli
from engine import run
from options import Option

# What an objective declares options for.
SAMPLER, PREDICTOR = 'sampler', 'predictor'

_MAKERS: Mapping[type, Callable] = {
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_bool,
  str: flags.DEFINE_string,
}


def declared(workdir: str, part: str) -> Mapping[str, Option]:
  """Returns the options of a part of a run's objective; none where it has no such part.

  Args:
    workdir: the run's folder.
    part: `SAMPLER` or `PREDICTOR`.

  Raises:
    UserError: the run's description is unreadable.
  """
  from engine.objective import build_objective  # They import jax.
  from engine.restore import stored_config

  config, spec = stored_config(workdir), run.read_spec(workdir)
  found = getattr(build_objective(config, spec, config.train.precision), part)
  return {} if found is None else found.options


def define(argv: Sequence[str], workdir: str, part: str) -> None:
  """Defines a flag for every option of a part of a run's objective."""
  for name, option in declared(workdir, part).items():
    allowed = f' It must be {option.allowed}.' if option.allowed else ''
    doc = f'Option of the {part}. {option.doc}{allowed}'
    _MAKERS[option.type](name, option.default, doc)
    cli.show_in_help(name, argv)


def given(values: flags.FlagValues, workdir: str, part: str) -> dict[str, Any]:
  """Returns the options of a part of the objective that the command line gives, by name."""
  return {name: values[name].value for name in declared(workdir, part) if values[name].present}
