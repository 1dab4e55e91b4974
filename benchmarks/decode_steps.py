"""Our side of a comparison of writing text: whole texts, driven over stdin.

  python -m benchmarks.decode_steps --config=configs/gpt_shakespeare.py --num=8 --length=256

Speaks the protocol of `benchmarks/peers/protocol.py`; a step is `--num` texts of `--length` tokens,
of a model at step 0, each token drawn from the whole distribution.
"""

import sys

from absl import flags

from benchmarks.peers import protocol
from commands import cli, config_flags

flags.DEFINE_integer('num', 1, 'Texts written at once.')
flags.DEFINE_integer('length', 256, 'Tokens of a text, the one it begins with included.')


def main() -> None:
  # Imports jax, which must come after the process was prepared.
  from benchmarks.writer import Writer

  values = flags.FLAGS
  protocol.serve(Writer(values.config, values.num, values.length).run)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_config)
