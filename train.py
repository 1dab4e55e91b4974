"""Trains what a config describes: python train.py --config=configs/gan.py

A run that has started goes on with the same command, or with its folder alone:

python train.py --workdir=runs/gan

--print_config prints the config, with every flag applied, as a file that --config takes. --dry_run
shows what would be trained, and the memory it needs. Both end without training.
"""

import sys

from absl import flags

from commands import cli, config_flags, print_config
from engine.build import to_plain
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder; runs/NAME of the config if not given.")
flags.DEFINE_bool('distributed', False, cli.DISTRIBUTED)
flags.DEFINE_float('join_timeout', cli.DEFAULT_JOIN_TIMEOUT, cli.JOIN_TIMEOUT)
flags.DEFINE_bool('print_config', False, 'Print the complete config as a config file, and end.')
flags.DEFINE_bool(
  'dry_run',
  False,
  'Check everything, compile, print config, parameters, memory and operations, and end.',
)


def main() -> None:
  values = flags.FLAGS
  if 'config' not in values:
    raise UserError('give --config, e.g. python train.py --config=configs/gan.py')
  if values.print_config and values.dry_run:
    raise UserError('--dry_run prints the config too; leave out --print_config, or --dry_run')
  if values.print_config:
    print(print_config.config_file(values.config), end='')
    return
  if values.workdir == '':
    raise UserError('--workdir= names no folder; give one, or leave the flag out')
  workdir = values.workdir or cli.default_workdir(sys.argv)
  same = {'config': to_plain(values.config), 'workdir': workdir}
  cli.join_processes(saves=True, options=same)
  # They import jax, which must come after the process was prepared.
  if values.dry_run:
    from commands import dry_run

    dry_run.dry_run(values.config, workdir)
    return
  from engine import loop

  loop.train(values.config, workdir)


if __name__ == '__main__':
  lost = 'nothing was saved since the last checkpoint'
  cli.launch(main, sys.argv, lost, config_flags.define_training_config)
