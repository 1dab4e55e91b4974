"""Joining the processes of one job."""

import os

import jax

from errors import UserError


def join() -> None:
  """`jax.distributed.initialize()`, told by the environment where jax cannot find out by itself.

  Raises:
    UserError: the peers cannot be found.
  """
  try:
    jax.distributed.initialize(
      coordinator_address=os.environ.get('JAX_COORDINATOR_ADDRESS'),
      num_processes=_number('JAX_NUM_PROCESSES'),
      process_id=_number('JAX_PROCESS_ID'),
    )
  except (ValueError, RuntimeError) as error:
    raise UserError(
      f'--distributed: {str(error).splitlines()[0]} Set JAX_COORDINATOR_ADDRESS=HOST:PORT, '
      'JAX_NUM_PROCESSES and JAX_PROCESS_ID where neither a TPU pod nor Slurm tells them'
    ) from error


def _number(name: str) -> int | None:
  value = os.environ.get(name)
  if value is None:
    return None
  if not value.isdigit():
    raise UserError(f'{name}={value} must be a whole number')
  return int(value)
