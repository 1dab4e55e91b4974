"""Trains what a config describes: python train.py --config=configs/gan.py"""

import sys

from absl import flags

from commands import cli
from errors import UserError

cli.define_config_flag()
flags.DEFINE_string('workdir', None, "The run's folder; runs/NAME of the config if not given.")
flags.DEFINE_bool(
  'distributed',
  False,
  'This is one process of several. They find each other by themselves on TPU pods and Slurm, else '
  'through JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.',
)


def main() -> None:
  if flags.FLAGS.config is None:
    raise UserError('give --config, e.g. python train.py --config=configs/gan.py')
  if flags.FLAGS.distributed:
    from engine import distributed

    distributed.join()
  from engine import loop

  loop.train(flags.FLAGS.config, flags.FLAGS.workdir or cli.default_workdir(sys.argv))


if __name__ == '__main__':
  cli.launch(main, sys.argv, 'nothing was saved since the last checkpoint')
