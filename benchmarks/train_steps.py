"""Our side of a comparison: whole training steps as train.py runs them, driven over stdin.

  python -m benchmarks.train_steps --config=configs/gan.py --config.data.batch_size=16

Speaks the protocol of `benchmarks/peers/protocol.py`: `warm N`, `run N`, `quit`. Data, order,
metrics and averages are included, as are dispatches of the loop's length; logging is not.
"""

import sys

from absl import flags

from benchmarks.peers import protocol
from commands import cli, config_flags


def main() -> None:
  # Imports jax, which must come after the process was prepared.
  from benchmarks.stepper import Stepper

  protocol.serve(Stepper(flags.FLAGS.config).run)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_config)
