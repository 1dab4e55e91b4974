"""Flags for the options that the sampler of the run in --workdir declares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from commands import cli
from engine import run
from options import Option

_MAKERS: Mapping[type, Callable] = {
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_bool,
  str: flags.DEFINE_string,
}


def sampler_options(workdir: str) -> Mapping[str, Option]:
  """Returns the options that the sampler of a run declares; none where it has no sampler.

  Raises:
    UserError: the run's description is unreadable.
  """
  from engine.objective import build_objective  # They import jax.
  from engine.restore import stored_config

  config, spec = stored_config(workdir), run.read_spec(workdir)
  sampler = build_objective(config, spec, config.train.precision).sampler
  return {} if sampler is None else sampler.options


def define(argv: Sequence[str], workdir: str) -> None:
  """Defines a flag for every option of the sampler of a run."""
  for name, option in sampler_options(workdir).items():
    allowed = f' It must be {option.allowed}.' if option.allowed else ''
    _MAKERS[option.type](name, option.default, f'Option of the sampler. {option.doc}{allowed}')
    cli.show_in_help(name, argv)


def given(values: flags.FlagValues, workdir: str) -> dict[str, Any]:
  """Returns the options of the sampler that the command line gives, by name."""
  return {name: values[name].value for name in sampler_options(workdir) if values[name].present}
