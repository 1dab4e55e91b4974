"""Trains what a config describes: python train.py --config=configs/gan.py

A run that has started goes on with the same command, or with its folder alone:

python train.py --workdir=runs/gan
"""

import sys

from absl import flags

from commands import cli, config_flags
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder; runs/NAME of the config if not given.")
flags.DEFINE_bool('distributed', False, cli.DISTRIBUTED)


def main() -> None:
  values = flags.FLAGS
  if 'config' not in values:
    raise UserError('give --config, e.g. python train.py --config=configs/gan.py')
  cli.join_processes(values.distributed)
  from engine import loop

  loop.train(values.config, values.workdir or cli.default_workdir(sys.argv))


if __name__ == '__main__':
  lost = 'nothing was saved since the last checkpoint'
  cli.launch(main, sys.argv, lost, config_flags.define_training_config)
