"""Benchmark program that generates texts with one of our models, driven over stdin.

  python -m benchmarks.decode_steps --config=configs/gpt_shakespeare.py --num=8 --length=256

It follows the protocol of `benchmarks/peers/protocol.py`. A step generates `--num` texts of
`--length` tokens with an untrained model, each token sampled from the whole distribution.
"""

import sys

from absl import flags

from benchmarks.peers import protocol
from commands import cli, config_flags

flags.DEFINE_integer('num', 1, 'Number of texts that are generated together.')
flags.DEFINE_integer('length', 256, 'Tokens of a text, its first token included.')


def main() -> None:
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from benchmarks.stepper import described_device
  from benchmarks.text_generator import TextGenerator

  values = flags.FLAGS
  generator = TextGenerator(values.config, values.num, values.length)
  protocol.serve(generator.run, describe=described_device)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_config)
