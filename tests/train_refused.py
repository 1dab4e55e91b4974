"""A script: train.py, of which a disk refuses some saves in one process, in the background.

REFUSED_PROCESS=1 REFUSED_SAVES=2,3 python -m tests.train_refused --config=… --workdir=… …
"""

import os
import sys
from typing import Any

import train
from commands import cli, config_flags


class Refused:
  """The part of a save that cannot be written, as Orbax waits for it."""

  def result(self, timeout: float | None = None) -> None:
    raise ValueError('RESOURCE_EXHAUSTED: Failed to write 7 bytes: No space left on device')

  def cancel(self) -> None:
    pass


def main() -> None:
  import orbax.checkpoint as ocp

  saves = [int(number) for number in os.environ['REFUSED_SAVES'].split(',')]
  here = os.environ['REFUSED_PROCESS'] == os.environ.get('JAX_PROCESS_ID', '0')
  save, number = ocp.CompositeCheckpointHandler.async_save, 0

  async def refusing(self: Any, *arguments: Any, **options: Any) -> Any:
    nonlocal number
    number += 1
    futures = await save(self, *arguments, **options)
    return [*(futures or []), Refused()] if here and number in saves else futures

  ocp.CompositeCheckpointHandler.async_save = refusing
  train.main()


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_training_config)
