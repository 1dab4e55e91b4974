"""Named exponential moving averages of a module's variables: the section `config.ema`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from engine.build import call, to_plain
from errors import UserError, choose
from options import option


@dataclasses.dataclass(frozen=True)
class Average:
  """One entry of `config.ema`; exactly one of `decay` and `half_life` is above 0."""

  module: str = option('The module whose parameters and statistics are averaged.')
  decay: float = option('Weight of the old average in every step.', low=0, below=1)
  half_life: float = option('Examples after which half of the old average is left.', low=0)

  def updated(self, average: Any, variables: Any, step: jax.Array, examples: int) -> Any:
    """Returns the average after one step.

    The running statistics of a module, as of batch norms, are averaged like its parameters: those
    of the newest parameters would not belong to the averaged ones. Whole numbers, such as counts,
    are the newest.

    Its decay is at most (1 + t)/(10 + t). This ramp, TensorFlow's `num_updates` rule, keeps the
    random start out of the averages of short runs.

    Args:
      average: the module's averaged variables before the step.
      variables: its variables after it.
      step: int32 scalar t, steps before this one.
      examples: how many a step consumes.
    """
    t = step.astype(jnp.float32)
    decay = self.decay or 0.5 ** (examples / self.half_life)
    rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))

    def moved(new: jax.Array, old: jax.Array) -> jax.Array:
      floating = jnp.issubdtype(jnp.result_type(new), jnp.floating)
      return optax.incremental_update(new, old, rate) if floating else new

    return jax.tree.map(moved, variables, average)


def named_averages(config: ConfigDict, modules: Mapping[str, Any]) -> dict[str, Average]:
  """Returns the checked section.

  Raises:
    UserError: an unknown module or option, a value out of range, both of `decay` and `half_life` or
      neither, or an average called `none`, which stands for the raw parameters.
  """
  averages = {}
  for name, section in to_plain(config.ema).items():
    where = f'config.ema.{name}'
    if name == NONE:
      raise UserError(f'{where} cannot be asked for: --average={NONE} means no average; rename it')
    average = call(Average, section, where)
    choose(modules, average.module, f'{where}.module')
    if bool(average.decay) == bool(average.half_life):
      raise UserError(
        f'{where} has decay={average.decay} and half_life={average.half_life}; set one of them, '
        'and the other to 0'
      )
    averages[name] = average
  return averages


# The name that stands for the parameters themselves.
NONE = 'none'


def chosen_averages(averages: Mapping[str, Average], requested: str) -> dict[str, str]:
  """Returns `{module: name of its average}` for what samplers and evaluators use.

  Args:
    averages: of the run.
    requested: the name of an average, 'none' for the parameters themselves, or '' for the first
      average of each module; those of a config are in alphabetical order.

  Raises:
    UserError: there is no such average.
  """
  first = {average.module: name for name, average in reversed([*averages.items()])}
  if not requested:
    return first
  if requested == NONE:
    return {}
  choose({**averages, NONE: None}, requested, '--average')
  return {**first, averages[requested].module: requested}
