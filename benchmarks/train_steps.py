"""Benchmark program that takes the training steps of a config as train.py does, driven over stdin.

  python -m benchmarks.train_steps --config=configs/gan.py --config.data.batch_size=16

It follows the protocol of `benchmarks/peers/protocol.py`: `warm N`, `run N`, `describe`, `quit`.
Steps include data, order, metrics and averages, in dispatches as long as the loop's, but no
logging.
"""

import sys

from absl import flags

from benchmarks.peers import protocol
from commands import cli, config_flags


def main() -> None:
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from benchmarks.stepper import Stepper

  stepper = Stepper(flags.FLAGS.config)
  protocol.serve(stepper.run, describe=stepper.describe)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_config)
